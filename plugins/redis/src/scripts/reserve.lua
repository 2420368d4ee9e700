-- Reserves an idempotency key for `ours`, a new task and the attempt to enqueue it, for so many milliseconds;
-- unless it is reserved for another one, and that is not what was `expected`. Answers what else it is reserved
-- for, or nothing; then how many milliseconds ago that was.

local key, ours, window, expected = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local theirs = redis.call('GET', key)
if theirs and theirs ~= expected then
  return { theirs, math.max(0, now - (tonumber(theirs:match('%d+$')) or 0)) }
end
redis.call('SET', key, string.format('%s %.0f', ours, now), 'PX', window)
return { '', 0 }
