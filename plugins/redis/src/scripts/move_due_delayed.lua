-- At most how many.

local moved, next = repair_all('due', tonumber(ARGV[FIRST]))
local body = {}
report(body, moved, next)
return answer(body)
