-- For each item: task, the result's record.

local body, say = answers(1)
for n = FIRST, #ARGV, 2 do
  if call('HEXISTS', TASKS, ARGV[n]) == 1 then
    call('HSET', RESULTS, ARGV[n], ARGV[n + 1])
    say('+')
  else
    say('NOT_FOUND')
  end
end
return answer(body)
