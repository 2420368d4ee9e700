-- For each item: task, final status, error and result key in JSON.

local body = {}
for n = FIRST, #ARGV, 4 do
  local task, unreadable = load(ARGV[n])
  if task then
    finish(task, home(task), ARGV[n + 1], ARGV[n + 2], ARGV[n + 3])
    done(body)
  else
    say(body, unreadable and 'CORRUPT' or 'NOT_FOUND')
  end
end
return answer(body)
