-- What every script begins with: what it is told, the clock, and how times are written.

local call, try = redis.call, redis.pcall
local find, sub, byte, fmt = string.find, string.sub, string.byte, string.format
local floor, max, min = math.floor, math.max, math.min

-- What every script is given first. What the operation is about follows from ARGV[FIRST] on.
local INSTANCE, ZONE_OFFSET, MAX_ATTEMPTS = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local BACKOFF, BACKOFF_BASE, BACKOFF_MAX = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local KEPT_FOR, REMEMBERED_FOR = tonumber(ARGV[7]), tonumber(ARGV[8])
local REPAIR_LIMIT = tonumber(ARGV[10])
local FIRST = 11
math.randomseed(tonumber(ARGV[9]))

-- The server's clock is the only one: hosts need not agree on the time.
local clock = call('TIME')
local now_micros = clock[1] * 1000000 + clock[2]
local now = floor(now_micros / 1000)

local function whole(number) return fmt('%.0f', number) end
-- Scores of codeQ's sorted sets are Unix seconds; a fraction keeps the milliseconds.
local function seconds(millis) return fmt('%.3f', millis / 1000) end

-- RFC 3339 ends with the year 9999.
local LAST_MILLIS = 253402128000000

local function date(millis, offset)
  local secs = floor(max(0, min(millis, LAST_MILLIS)) / 1000) + offset
  local days = floor(secs / 86400)
  local rest = secs - days * 86400
  -- Years that begin in March put the leap day at their end.
  local shifted = days + 719468
  local era = floor(shifted / 146097)
  local day = shifted - era * 146097
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  day = day - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * day + 2) / 153)
  local of_month = day - floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  return fmt('%04d-%02d-%02dT%02d:%02d:%02d', year, month, of_month,
    floor(rest / 3600), floor(rest / 60) % 60, rest % 60)
end

local function local_time(millis)
  local fraction = millis % 1000
  local text = date(millis, ZONE_OFFSET) .. (fraction > 0 and fmt('.%03d', fraction) or '')
  if ZONE_OFFSET == 0 then return '"' .. text .. 'Z"' end
  local ahead = math.abs(ZONE_OFFSET)
  return fmt('"%s%s%02d:%02d"', text, ZONE_OFFSET < 0 and '-' or '+',
    floor(ahead / 3600), floor(ahead / 60) % 60)
end

local NOW_TEXT = local_time(now)
-- The same up to the minute.
local MINUTE = sub(NOW_TEXT, 1, #'"2026-01-02T12:00')

-- The instant of an RFC 3339 text; nothing if it is none.
local function instant(text)
  local y, mo, d, h, mi, s, zone =
    text:match('^(%d+)-(%d+)-(%d+)[Tt](%d+):(%d+):([%d%.]+)(.*)$')
  if not y then return nil end
  local sign, oh, om = zone:match('^([+-])(%d+):(%d+)$')
  local offset = sign and (oh * 3600 + om * 60) * (sign == '-' and -1 or 1) or 0
  y, mo, d = tonumber(y), tonumber(mo), tonumber(d)
  if mo <= 2 then y, mo = y - 1, mo + 12 end
  local era = floor(y / 400)
  local of_era = y - era * 400
  local day = floor((153 * (mo - 3) + 2) / 5) + d - 1
  local days = era * 146097 + of_era * 365 + floor(of_era / 4) - floor(of_era / 100) + day - 719468
  return floor((days * 86400 + h * 3600 + mi * 60 + tonumber(s) - offset) * 1000)
end

-- How many arguments one command is given: Lua's stack takes no more than 8,000.
local AT_ONCE = 4000

-- Calls a command on a key with any number of arguments.
local function bulk(run, command, key, args)
  local n = #args
  if n <= AT_ONCE then return run(command, key, unpack(args)) end
  for from = 1, n, AT_ONCE do
    run(command, key, unpack(args, from, min(from + AT_ONCE - 1, n)))
  end
end
