-- Leases; a group's delay (empty if none is named) and reason in JSON.

local body, say = answers(3)
each_lease(2, 0, say, function(task, shared)
  local reason = ARGV[shared + 1]
  if reason == '""' then reason = MAX_ATTEMPTS_ERROR end
  local delay, awoke = retry_or_bury(task, home(task), tonumber(ARGV[shared]), reason)
  say('+', task.text, whole(delay), awoke and '1' or '0')
end)
return answer(body)
