-- Records: a task's JSON as its top-level members, each kept as the text it had, so that what this
-- plugin does not know about a task (payload, unknown fields, big numbers) is written back as read.

local call = redis.call
local find, sub, byte, fmt = string.find, string.sub, string.byte, string.format
local floor, max, min = math.floor, math.max, math.min

local TASKS, RETENTION, RESULTS = 'codeq:tasks', 'codeq:tasks:ttl', 'codeq:results'
local CORRUPT = 'codeq:x:corrupt'

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

local function end_of_string(text, from)
  local _, close = find(text, '[^\\]"', from)
  if close and not find(sub(text, from, close), '\\\\"', 1, true) then return close end
  -- A backslash before a quote may be escaped itself: an odd number of them escapes the quote.
  close = find(text, '"', from + 1, true)
  while close do
    local before = close - 1
    while byte(text, before) == 92 do before = before - 1 end
    if (close - before) % 2 == 1 then return close end
    close = find(text, '"', close + 1, true)
  end
end

local function end_of_value(text, from)
  local first = byte(text, from)
  if first == 34 then return end_of_string(text, from) end
  if first ~= 123 and first ~= 91 then
    local _, last = find(text, '^[%w%.+-]+', from)
    return last
  end
  local depth, at = 0, from
  while at do
    local mark = byte(text, at)
    if mark == 34 then
      at = end_of_string(text, at)
      if not at then return nil end
    else
      depth = depth + ((mark == 123 or mark == 91) and 1 or -1)
      if depth == 0 then return at end
    end
    at = find(text, '[%[%]{}"]', at + 1)
  end
end

-- The member that begins at `from`: its name, its value, where what follows it ends, and what that is.
local function member(text, from)
  -- Most members are plain and written without blanks.
  local _, stop, name, value, mark = find(text, '^"([^"\\]*)":("[^"\\]*")([,}])', from)
  if not stop then _, stop, name, value, mark = find(text, '^"([^"\\]*)":(%d+)([,}])', from) end
  if stop then return name, value, stop, mark end
  local close = byte(text, from) == 34 and end_of_string(text, from)
  if not close then return nil end
  local _, colon = find(text, '^%s*:%s*', close + 1)
  local last = colon and end_of_value(text, colon + 1)
  if not last then return nil end
  _, stop, mark = find(text, '^%s*([,}])%s*', last + 1)
  return sub(text, from + 1, close - 1), sub(text, colon + 1, last), stop, mark
end

-- The members of the object in `text` from `from` on, where one begins. What stands before them is
-- kept as it is. Nothing if they do not reach to the end of the object and of the text.
local function members(text, from)
  local record = { before = sub(text, 1, from - 1), n = 0, names = {}, values = {}, at = {} }
  local names, values, at, n = record.names, record.values, record.at, 0
  local name, value, stop, mark
  repeat
    name, value, stop, mark = member(text, from)
    if not mark then return nil end
    -- Of two members with one name the last one counts, as in codeQ.
    if at[name] then values[at[name]] = false end
    n = n + 1
    names[n], values[n], at[name] = name, value, n
    from = stop + 1
    if mark == ',' and byte(text, from) ~= 34 then
      from = find(text, '[^%s]', from)
      if not from then return nil end
    end
  until mark == '}'
  record.n = n
  return not find(text, '[^%s]', stop + 1) and record or nil
end

-- All members. Nothing if the text is not a JSON object.
local function scan(text)
  local _, stop = find(text, '^%s*{%s*')
  return stop and members(text, stop + 1)
end

-- The members that change and are looked at, without a look into the payload before them. codeQ and
-- this plugin write them behind it. In a string every quote has a backslash before it, so a name
-- between bare quotes is a name; and if the members from there on reach to the end of the text, they
-- are those of the record and of nothing inside it.
local CHANGING = { 'priority', 'lastKnownLocation', 'workerId', 'leaseUntil', 'attempts',
  'maxAttempts', 'error', 'resultKey', 'tenantId', 'updatedAt' }

local function scan_end(text)
  local command = text:match('^{"id":"[^"\\]*","command":"([^"\\]*)","payload":"')
  local from = command and (find(text, ',"priority":', 1, true) or find(text, ',"status":', 1, true))
  local record = from and members(text, from + 1)
  if not record or not record.at.status then return nil end
  for _, name in ipairs(CHANGING) do
    if not record.at[name] and find(record.before, '"' .. name .. '"', 1, true) then return nil end
  end
  record.command = command
  return record
end

local function raw(record, name)
  local n = record.at[name]
  return n and record.values[n] or nil
end

-- `value` is JSON; without one the member is left out.
local function set(record, name, value)
  local n = record.at[name]
  if n then
    record.values[n] = value or false
  elseif value then
    n = record.n + 1
    record.n, record.names[n], record.values[n], record.at[name] = n, name, value, n
  end
end

local function rendered(record)
  local texts, count = {}, 0
  for n = 1, record.n do
    if record.values[n] then
      count = count + 1
      texts[count] = '"' .. record.names[n] .. '":' .. record.values[n]
    end
  end
  return record.before .. table.concat(texts, ',') .. '}'
end

-- The text of a member; empty if there is none, nothing if it is no text.
local function text_of(record, name)
  local value = raw(record, name)
  if not value or value == 'null' then return '' end
  if byte(value) ~= 34 then return nil end
  if not find(value, '\\', 1, true) then return sub(value, 2, -2) end
  local read, values = pcall(cjson.decode, '[' .. value .. ']')
  return read and values[1] or nil
end

local function number_of(record, name)
  local value = raw(record, name)
  if not value or value == 'null' then return 0 end
  return tonumber(value)
end

local STATES = { PENDING = true, IN_PROGRESS = true, COMPLETED = true, FAILED = true }

-- A task from its text; nothing if the text is no task.
local function parse(id, text)
  local task = scan_end(text) or scan(text)
  if not task then return nil end
  task.id, task.text = id, text
  task.status, task.tenant = text_of(task, 'status'), text_of(task, 'tenantId')
  task.command = task.command or text_of(task, 'command')
  task.worker, task.location = text_of(task, 'workerId'), text_of(task, 'lastKnownLocation')
  task.attempts, task.limit = number_of(task, 'attempts'), number_of(task, 'maxAttempts')
  task.priority = number_of(task, 'priority')
  local complete = STATES[task.status] and task.command and task.tenant and task.worker
    and task.location and task.attempts and task.limit and task.priority
  if not complete then return nil end
  task.priority = max(0, min(9, floor(task.priority)))
  return task
end

-- The task of an id, or nothing and whether there is a record that cannot be read.
local function load(id)
  local text = call('HGET', TASKS, id)
  if not text then return nil, false end
  local task = parse(id, text)
  return task, not task
end

local function is_final(task) return task.status == 'COMPLETED' or task.status == 'FAILED' end

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
