-- codeQ's keys of subscriptions: for each command the ids by when they expire, when each was told of
-- something last, and the turns of groups.

local SUBSCRIPTIONS = 'codeq:subs'

-- Commands are in lower case.
local function list_under(command, id, ends)
  call('ZADD', SUBSCRIPTIONS .. ':' .. command, seconds(ends), id)
end

local function unlist(command, id) call('ZREM', SUBSCRIPTIONS .. ':' .. command, id) end

-- The ids that are listed under a command; some may have expired within the last second.
local function listed_under(command)
  -- codeQ cuts fractions off its scores; the record has the exact end.
  return call('ZRANGEBYSCORE', SUBSCRIPTIONS .. ':' .. command, seconds(now - 1000), '+inf')
end

-- Whether a notice is allowed now; then there is none for `interval` milliseconds.
local function allow_notice(id, interval)
  return call('SET', SUBSCRIPTIONS .. ':last:' .. id, '1', 'NX', 'PX', whole(interval))
end

local function forget_notices(id) call('DEL', SUBSCRIPTIONS .. ':last:' .. id) end

-- Counts a turn of a group. codeQ's counter knows no tenants.
local function count_turn(command, tenant, group)
  local key = SUBSCRIPTIONS .. ':rr:' .. command .. ':' .. group
  if tenant ~= '' or find(command .. group, ':', 1, true) then
    key = 'codeq:x:rr:' .. #command .. ':' .. #tenant .. ':' .. command .. tenant .. group
  end
  return call('INCR', key)
end
