-- Forgets where a task is, if that was said at least so many milliseconds ago, in the words that were
-- expected; without expected words, if it was said to be in that queue.

local key, least_age, queue, expected = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3]
local said = redis.call('GET', key)
if not said or (expected ~= '' and said ~= expected) then return 0 end
local in_queue, since = said:match('^(%S*) (%d+)')
local time = redis.call('TIME')
local age = time[1] * 1000 + math.floor(time[2] / 1000) - (tonumber(since) or 0)
if age < least_age or (expected == '' and in_queue ~= queue) then return 0 end
return redis.call('DEL', key)
