-- A task, the attempt to enqueue it, and for how long to remember that it is forbidden. If the task is not
-- there, that attempt comes to nothing, whenever it comes. Answers whether the task is there.

local id, attempt, remembered_for = ARGV[FIRST], ARGV[FIRST + 1], tonumber(ARGV[FIRST + 2])
local exists = call('HEXISTS', TASKS, id) == 1
if not exists then
  call('ZREMRANGEBYSCORE', FORBIDDEN, '-inf', whole(now))
  call('ZADD', FORBIDDEN, whole(now + remembered_for), attempt)
end
return answer({ exists and '1' or '0' })
