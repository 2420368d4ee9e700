-- For each item: task, final status, error and result key in JSON.

local function member(name, value) return value ~= '""' and ',"' .. name .. '":' .. value or '' end

local body, say = answers(1)
for n = FIRST, #ARGV, 4 do
  local task, unreadable = load(ARGV[n])
  if task then
    finish(task, home(task), ending_of(ARGV[n + 1], member('error', ARGV[n + 2]),
      member('resultKey', ARGV[n + 3])))
    say('+')
  else
    say(unreadable and 'CORRUPT' or 'NOT_FOUND')
  end
end
return answer(body)
