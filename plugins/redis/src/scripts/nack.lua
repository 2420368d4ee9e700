-- For each item: task, tenant, worker, attempt, delay (empty if none is named), reason in JSON.

local body = {}
for n = FIRST, #ARGV, 6 do
  local task, code, detail = fence(ARGV[n], ARGV[n + 1], ARGV[n + 2], tonumber(ARGV[n + 3]))
  if task then
    local reason = ARGV[n + 5] == '""' and MAX_ATTEMPTS_ERROR or ARGV[n + 5]
    local delay, awoke = retry_or_bury(task, home(task), tonumber(ARGV[n + 4]), reason)
    done(body, task.text, whole(delay), awoke and '1' or '0')
  else
    say(body, code, detail)
  end
end
return answer(body)
