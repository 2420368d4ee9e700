-- For each item: task, tenant.

local body, say = answers(3)
for n = FIRST, #ARGV, 2 do
  local task, unreadable = load(ARGV[n])
  if unreadable then
    say('CORRUPT')
  elseif not task or task.state.tenant ~= ARGV[n + 1] then
    say('NOT_FOUND')
  else
    local queue = home(task)
    local buried = task.state.status == 'FAILED'
      and (task.state.location == 'DLQ_SET' or is_exhumable(task, queue))
    if buried then
      exhume(task, queue)
      local awoke = release(task, queue, now, { attempts = 0, failure = '' })
      say('+', task.text, '0', awoke and '1' or '0')
    else
      say('NOT_DEAD', task.state.status)
    end
  end
end
return answer(body)
