-- Gives a reserved idempotency key back, if it still is reserved for `ours`.

local ours, said = ARGV[1] .. ' ', redis.call('GET', KEYS[1])
if not said or said:sub(1, #ours) ~= ours then return 0 end
return redis.call('DEL', KEYS[1])
