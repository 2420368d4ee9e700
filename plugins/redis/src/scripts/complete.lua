-- For each item: task, tenant, worker, attempt, final status, error in JSON, the result's record.

local body = {}
for n = FIRST, #ARGV, 7 do
  local task, code, detail = fence(ARGV[n], ARGV[n + 1], ARGV[n + 2], tonumber(ARGV[n + 3]))
  if task then
    call('HSET', RESULTS, task.id, ARGV[n + 6])
    finish(task, home(task), ARGV[n + 4], ARGV[n + 5], '"codeq:results"')
    done(body, task.text)
  else
    say(body, code, detail)
  end
end
return answer(body)
