-- For each item: task, tenant, worker, attempt.

local body = {}
for n = FIRST, #ARGV, 4 do
  local task, code, detail = fence(ARGV[n], ARGV[n + 1], ARGV[n + 2], tonumber(ARGV[n + 3]))
  if task then
    local queue = home(task)
    leave(task, queue)
    set_attempts(task, max(0, task.attempts - 1))
    local awoke = release(task, queue, now)
    done(body, task.text, '0', awoke and '1' or '0')
  else
    say(body, code, detail)
  end
end
return answer(body)
