-- For each item: id (empty if it is by worker), tenant, worker, how many commands, the commands in
-- lower case.

local body, say = answers(1)
local n = FIRST
while n <= #ARGV do
  local id, tenant, worker, count = ARGV[n], ARGV[n + 1], ARGV[n + 2], tonumber(ARGV[n + 3])
  local commands = {}
  for m = n + 4, n + 3 + count do commands[ARGV[m]] = true end
  n = n + 4 + count
  local candidates = every_subscription
  local ended = 0
  if id ~= '' then
    local record = find_subscription(id)
    candidates = function() return { record } end
  end
  for _, record in ipairs(candidates()) do
    local named = id ~= '' or (record.worker == worker and (count == 0 or is_about(record, commands)))
    if named and record.tenant == tenant then
      end_subscription(record)
      if record.ends > now then ended = ended + 1 end
    end
  end
  say('+', tostring(ended))
end
return answer(body)
