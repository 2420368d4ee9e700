-- Where a task is, as `<queue> <millisecond> <attempt>`. Says that it is in a queue, unless it is said to be
-- in another one, and that is not what was `expected`. Answers what else is said, or nothing; then whether
-- something was said before.

local key, queue, attempt, expected = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local said = redis.call('GET', key)
if said and said ~= expected and said:match('^%S*') ~= queue then return { said, 1 } end
local time = redis.call('TIME')
redis.call('SET', key, string.format('%s %.0f %s', queue, time[1] * 1000 + math.floor(time[2] / 1000), attempt))
return { '', said and 1 or 0 }
