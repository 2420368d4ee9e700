-- For each queue: command in lower case, tenant. Answers ready, delayed, in progress, dead-lettered.

local body = {}
for n = FIRST, #ARGV, 2 do
  local queue = queue_of(ARGV[n], ARGV[n + 1])
  local ready, delayed, leased, buried = 0, 0, 0, 0
  for _, places in ipairs({ queue, queue.unsharded }) do
    for priority = 0, 9 do ready = ready + call('LLEN', places.pending .. priority) end
    delayed = delayed + call('ZCARD', places.delayed)
    leased = leased + call('SCARD', places.inprog)
    buried = buried + call('SCARD', dead_letters(places))
  end
  for _, count in ipairs({ ready, delayed, leased, buried }) do body[#body + 1] = whole(count) end
end
return answer(body)
