-- For each item: id, tenant, the record, when it expires, how many commands, and for each of them the
-- spelling and the lower case.

local body, say = answers(1)
local n = FIRST
while n <= #ARGV do
  local id, tenant, text = ARGV[n], ARGV[n + 1], ARGV[n + 2]
  local ends, commands = tonumber(ARGV[n + 3]), tonumber(ARGV[n + 4])
  local before = find_subscription(id)
  n = n + 5
  if before and before.tenant ~= tenant then
    n = n + 2 * commands
    say('OTHERS')
  else
    -- Whoever registers again was told when he was told.
    if before then drop_subscription(before) end
    call('HSET', SUBSCRIPTIONS, id, text)
    for _ = 1, commands do
      teach(ARGV[n], ARGV[n + 1])
      list_under(ARGV[n + 1], id, ends)
      n = n + 2
    end
    say('+')
  end
end
return answer(body)
