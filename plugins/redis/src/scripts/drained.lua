-- Queues that had no more claimable tasks, each with the place it had then. Whoever has a new place by now
-- has tasks again.

for n = 1, #ARGV, 2 do
  local place = redis.call('ZSCORE', KEYS[1], ARGV[n])
  if place and tonumber(place) == tonumber(ARGV[n + 1]) then redis.call('ZREM', KEYS[1], ARGV[n]) end
end
return 0
