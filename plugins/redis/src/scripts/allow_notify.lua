-- For each item: subscription, the least time between two notices.

local body, say = answers(1)
for n = FIRST, #ARGV, 2 do
  local record, interval = find_subscription(ARGV[n]), tonumber(ARGV[n + 1])
  local allowed = record and record.ends > now
  if allowed and interval > 0 then allowed = allow_notice(record.id, interval) end
  say('+', allowed and '1' or '0')
end
return answer(body)
