-- For each item: id. Answers the record, and the exact deadline of its lease if it has one.

local body = {}
for n = FIRST, #ARGV do
  local text = call('HGET', TASKS, ARGV[n])
  if not text then
    say(body, 'NOT_FOUND')
  else
    local task = find(text, 'IN_PROGRESS', 1, true) and parse(ARGV[n], text)
    local deadline = task and task.status == 'IN_PROGRESS'
      and call('ZSCORE', home(task).deadlines, task.id)
    done(body, text, deadline and whole(tonumber(deadline)))
  end
end
return answer(body)
