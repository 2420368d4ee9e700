-- For each item: task, tenant.

local body = {}
for n = FIRST, #ARGV, 2 do
  local task, unreadable = load(ARGV[n])
  if unreadable then
    say(body, 'CORRUPT')
  elseif not task or task.tenant ~= ARGV[n + 1] then
    say(body, 'NOT_FOUND')
  else
    local queue = home(task)
    local buried = task.status == 'FAILED'
      and (task.location == 'DLQ_SET' or call('SISMEMBER', dead_letters(queue), task.id) == 1)
    if buried then
      call('SREM', dead_letters(queue), task.id)
      set_attempts(task, 0)
      set(task, 'error', nil)
      local awoke = release(task, queue, now)
      done(body, task.text, '0', awoke and '1' or '0')
    else
      say(body, 'NOT_DEAD', task.status)
    end
  end
end
return answer(body)
