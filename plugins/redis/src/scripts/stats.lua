-- For each queue: command in lower case, tenant. Answers ready, delayed, in progress, dead-lettered.

local body = {}
for n = FIRST, #ARGV, 2 do
  local queue = queue_of(ARGV[n], ARGV[n + 1])
  local ready = 0
  for priority = 0, 9 do ready = ready + call('LLEN', queue.pending .. priority) end
  local last = #body
  body[last + 1] = whole(ready)
  body[last + 2] = whole(call('ZCARD', queue.delayed))
  body[last + 3] = whole(call('SCARD', queue.inprog))
  body[last + 4] = whole(call('SCARD', dead_letters(queue)))
end
return answer(body)
