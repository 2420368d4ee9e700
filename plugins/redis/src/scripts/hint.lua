-- Queues of a tenant that have claimable tasks; they are served after all others. With `NX` those that are
-- known to have some keep their place.

local key, only_new = KEYS[1], ARGV[1] == 'NX'
local time = redis.call('TIME')
local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
local place = math.max(time[1] * 1000000 + time[2], (tonumber(last[2]) or 0) + 1)
for n = 2, #ARGV do
  if not (only_new and redis.call('ZSCORE', key, ARGV[n])) then
    redis.call('ZADD', key, string.format('%.0f', place), ARGV[n])
    place = place + 1
  end
end
return place
