-- For each item: the task.

local body = {}
for n = FIRST, #ARGV do
  local task, unreadable = load(ARGV[n])
  if not task then
    say(body, unreadable and 'CORRUPT' or 'NOT_FOUND')
  else
    if task.status == 'IN_PROGRESS' then
      retry_or_bury(task, home(task), 0, LEASE_EXPIRED_ERROR)
    else
      leave(task, home(task))
    end
    done(body)
  end
end
return answer(body)
