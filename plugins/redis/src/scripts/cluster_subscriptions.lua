-- The keys of subscriptions in a cluster, all in one slot: their records, when each may be told of something
-- again, the turns of groups, and commands in lower case. There are no lists by command: that would be a
-- key for each, which no call could name beforehand.

local SUBSCRIPTIONS, TOLD, TURNS, LOWER = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local EVENTS

local function lower(command)
  if not find(command, '[\128-\255]') then return string.lower(command) end
  return call('HGET', LOWER, command) or string.lower(command)
end

local function teach(command, lowered)
  if find(command, '[\128-\255]') then call('HSET', LOWER, command, lowered) end
end

local function list_under() end
local function unlist() end

-- The ids of all that are about a command.
local function listed_under(command)
  local ids, entries = {}, call('HGETALL', SUBSCRIPTIONS)
  for n = 1, #entries, 2 do
    local record = scan(entries[n + 1])
    local read, commands = pcall(cjson.decode, record and raw(record, 'eventTypes') or '[]')
    for _, mine in ipairs(read and type(commands) == 'table' and commands or {}) do
      if lower(mine) == command then
        ids[#ids + 1] = entries[n]
        break
      end
    end
  end
  return ids
end

-- Whether a notice is allowed now; then there is none for `interval` milliseconds.
local function allow_notice(id, interval)
  local again_at = tonumber(call('ZSCORE', TOLD, id) or nil)
  if again_at and again_at > now then return false end
  call('ZADD', TOLD, whole(now + interval), id)
  return true
end

local function forget_notices(id) call('ZREM', TOLD, id) end

-- Counts a turn of a group.
local function count_turn(command, tenant, group)
  return call('HINCRBY', TURNS, #command .. ':' .. #tenant .. ':' .. command .. tenant .. group, 1)
end
