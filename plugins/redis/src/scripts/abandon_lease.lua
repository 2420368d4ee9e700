-- Leases.

local body, say = answers(3)
each_lease(0, 0, say, function(task)
  local queue = home(task)
  leave(task, queue)
  local awoke = release(task, queue, now, { attempts = max(0, task.state.attempts - 1) })
  say('+', task.text, '0', awoke and '1' or '0')
end)
return answer(body)
