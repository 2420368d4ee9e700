-- Leases; a group's final status and error in JSON; an item's result.

local body, say = answers(1)
local endings = {}
each_lease(2, 1, say, function(task, shared, item)
  local ending, n = endings[shared], #results
  if not ending then
    local error = ARGV[shared + 1]
    ending = ending_of(ARGV[shared], error ~= '""' and ',"error":' .. error or '',
      ',"resultKey":"codeq:results"')
    endings[shared] = ending
  end
  results[n + 1], results[n + 2] = task.id, ARGV[item]
  finish(task, home(task), ending)
  say('+', task.text)
end)
return answer(body)
