-- For each item: the task.

local body, say = answers(1)
for n = FIRST, #ARGV do
  local task, unreadable = load(ARGV[n])
  if not task then
    say(unreadable and 'CORRUPT' or 'NOT_FOUND')
  else
    if task.state.status == 'IN_PROGRESS' then
      retry_or_bury(task, home(task), 0, LEASE_EXPIRED_ERROR)
    else
      leave(task, home(task))
    end
    say('+')
  end
end
return answer(body)
