-- Takes so many of a tenant's queues from the front, those that were served longest ago, and puts them to
-- the end. Answers each and its new place.

local key = KEYS[1]
local queues = redis.call('ZRANGE', key, 0, tonumber(ARGV[1]) - 1)
if not queues[1] then return {} end
local time = redis.call('TIME')
local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
local place = math.max(time[1] * 1000000 + time[2], tonumber(last[2]) + 1)
local answer = {}
for n, queue in ipairs(queues) do
  local text = string.format('%.0f', place + n)
  redis.call('ZADD', key, text, queue)
  answer[2 * n - 1], answer[2 * n] = queue, text
end
return answer
