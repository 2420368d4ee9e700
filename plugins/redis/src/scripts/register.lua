-- For each item: id, the record, when it expires, how many commands, and for each of them the
-- spelling and the lower case.

local body = {}
local n = FIRST
while n <= #ARGV do
  local id, text, ends, commands = ARGV[n], ARGV[n + 1], tonumber(ARGV[n + 2]), tonumber(ARGV[n + 3])
  local before = find_subscription(id)
  if before then end_subscription(before) end
  call('HSET', SUBSCRIPTIONS, id, text)
  n = n + 4
  for _ = 1, commands do
    teach(ARGV[n], ARGV[n + 1])
    call('ZADD', SUBSCRIPTIONS .. ':' .. ARGV[n + 1], seconds(ends), id)
    n = n + 2
  end
  done(body)
end
return answer(body)
