-- Tasks: their records in JSON, taken apart into what their life changes and what it does not, and
-- written back; and what a script has read and is going to write.

-- In a record of this plugin a blank stands before the status, as codeQ never writes it. What comes
-- before it never changes. Behind it comes the state, as `state_text` writes it, then `createdAt` and
-- `updatedAt`. So most records are read and written without a look at their payload; and as the tasks of
-- a batch are mostly in the same state, that is read once for all of them.
local MARK = ', "status":"'
local CREATED, UPDATED = ',"createdAt":"', ',"updatedAt":"'

local STATE = { status = true, lastKnownLocation = true, workerId = true, leaseUntil = true,
  attempts = true, error = true, resultKey = true, maxAttempts = true, tenantId = true,
  createdAt = true, updatedAt = true }

local STATUSES = { PENDING = true, IN_PROGRESS = true, COMPLETED = true, FAILED = true }

-- A state is a value: what changes a task gives it another one. `held`, `failure`, `outcome` and `fixed`
-- are members of the record as they stand in it, empty where there are none.
local function state_text(state)
  return MARK .. state.status .. '","lastKnownLocation":"' .. state.location .. '"' .. state.held
    .. (state.attempts > 0 and ',"attempts":' .. whole(state.attempts) or '') .. state.failure
    .. state.outcome .. state.fixed
end

local function changed(state, changes)
  local new = {}
  for name, value in pairs(state) do new[name] = value end
  for name, value in pairs(changes) do new[name] = value end
  new.text = state_text(new)
  return new
end

local function read_state(text)
  local _, at, status, location =
    find(text, '^([%u_]+)","lastKnownLocation":"([%u_]+)"', #MARK + 1)
  if not STATUSES[status] then return nil end
  -- A member that may be there, and the text of it.
  local function member(pattern)
    local _, stop, value = find(text, pattern, at + 1)
    if not stop then return '', nil end
    local written = sub(text, at + 1, stop)
    at = stop
    return written, value
  end
  local held, worker = member('^,"workerId":"([^"\\]*)","leaseUntil":"[^"\\]*"')
  local _, attempts = member('^,"attempts":(%d+)')
  local failure, outcome = member('^,"error":"[^"\\]*"'), nil
  outcome = member('^,"resultKey":"[^"\\]*"')
  local most, limit = member('^,"maxAttempts":(%d+)')
  local owner, tenant = member('^,"tenantId":"([^"\\]*)"')
  if at ~= #text then return nil end
  return {
    text = text, status = status, location = location, worker = worker or '', held = held,
    attempts = tonumber(attempts or 0), failure = failure, outcome = outcome,
    limit = tonumber(limit or 0), tenant = tenant or '', fixed = most .. owner,
  }
end

local states = {}

-- The task of a record that is just as this plugin writes most of them; nothing if it is not.
local function own(id, text)
  local from = find(text, MARK, 1, true)
  local created = from and find(text, CREATED, from, true)
  local updated = created and find(text, UPDATED, created, true)
  if not updated or find(text, '"', created + #CREATED, true) ~= updated - 1
    or find(text, '"', updated + #UPDATED, true) ~= #text - 1 then
    return nil
  end
  local written = sub(text, from, created - 1)
  local state = states[written]
  if state == nil then
    state = read_state(written) or false
    states[written] = state
  end
  return state and {
    id = id, text = text, own = true, head = sub(text, 1, from - 1), state = state,
    times = sub(text, created, updated + #UPDATED - 2), command = false, home = false,
  }
end

-- The task of any other record; nothing if the text is no task.
local function foreign(id, text)
  local object = scan(text)
  if not object then return nil end
  local function part(name)
    local value = raw(object, name)
    return value and value ~= 'null' and ',"' .. name .. '":' .. value or ''
  end
  local state = {
    status = text_of(object, 'status'), location = text_of(object, 'lastKnownLocation'),
    worker = text_of(object, 'workerId'), held = part('workerId') .. part('leaseUntil'),
    attempts = number_of(object, 'attempts'), failure = part('error'), outcome = part('resultKey'),
    limit = number_of(object, 'maxAttempts'), tenant = text_of(object, 'tenantId'),
    fixed = part('maxAttempts') .. part('tenantId'),
  }
  local task = {
    id = id, text = text, own = false, head = open_text(object, STATE), state = state, times = part('createdAt') .. ',"updatedAt":',
    command = text_of(object, 'command'), priority = number_of(object, 'priority'),
  }
  local complete = STATUSES[state.status] and state.location and state.worker and state.attempts
    and state.limit and state.tenant and task.command and task.priority and task.head ~= '{'
  return complete and task or nil
end

-- A task from its text; nothing if the text is no task.
local function parse(id, text) return own(id, text) or foreign(id, text) end

local COMMAND, PAYLOAD = '","command":"', '","payload":"'

-- Nothing if somebody has spoiled the part of the record that never changes; the host finds that out, too.
local function command_of(task)
  local command = task.command
  if command then return command end
  local from = find(task.head, COMMAND, 1, true)
  local to = from and find(task.head, PAYLOAD, from, true)
  command = to and sub(task.head, from + #COMMAND, to - 1)
  if not command or find(command, '[\\"]') then
    local object = scan(task.head .. '}')
    command = object and text_of(object, 'command')
  end
  task.command = command
  return command
end

local function priority_of(task)
  local object = not task.priority and scan(task.head .. '}')
  local priority = task.priority or object and number_of(object, 'priority') or 0
  return max(0, min(9, floor(priority)))
end

local function lease_until(task)
  return task.state.held:match(',"leaseUntil":"([^"\\]*)"') or ''
end

-- Whether a task's last change, as this plugin wrote it, was in the present minute.
local function is_of_this_minute(task)
  if not task.own then return false end
  local before = #task.head + #task.state.text + #task.times
  return sub(task.text, before + 1, before + #MINUTE) == MINUTE
end

local function is_final(task)
  local status = task.state.status
  return status == 'COMPLETED' or status == 'FAILED'
end

-- What was read: a record's text, or false; and the task, as the script has changed it, or false.
local texts, tasks = {}, {}

-- Reads the records of many tasks at once.
local function fetch(ids)
  for from = 1, #ids, AT_ONCE do
    local to = min(from + AT_ONCE - 1, #ids)
    local found = call('HMGET', TASKS, unpack(ids, from, to))
    for n = from, to do texts[ids[n]] = found[n - from + 1] end
  end
end

-- The task of an id, or nothing and whether there is a record that cannot be read.
local function load(id)
  local task = tasks[id]
  if task then return task end
  local text = texts[id]
  if text == nil then
    text = call('HGET', TASKS, id)
    texts[id] = text
  end
  if not text then return nil, false end
  if task == nil then
    task = parse(id, text) or false
    tasks[id] = task
  end
  return task or nil, not task
end

-- What is to be written. Nothing of a script is undone if the server refuses a command in the middle of
-- it, because of the type of a key: so keys are looked at first; then ids are put into their new places,
-- records are written, and only then are ids taken out of their old places.
local additions, added_to, results, records, retained = {}, {}, {}, {}, {}
local leases, removals, removed_from, trims, unlisted = {}, {}, {}, {}, {}
local occupied, vacated = {}, {}

local function collected(kinds, order, command, key)
  local args = kinds[key]
  if not args then
    args = { command = command, key = key }
    kinds[key] = args
    order[#order + 1] = args
  end
  return args
end

local function add(command, key, a, b)
  local args = collected(additions, added_to, command, key)
  args[#args + 1] = a
  if b then args[#args + 1] = b end
end

local function remove(command, key, id)
  local args = collected(removals, removed_from, command, key)
  args[#args + 1] = id
end

-- What tells whether a key is of the type that a command wants.
local LOOK = { LPUSH = 'LLEN', ZADD = 'ZCARD', SADD = 'SCARD' }

-- Fails while nothing is written yet, if something could not be.
local function look()
  for _, args in ipairs(added_to) do call(LOOK[args.command], args.key) end
  for _, queue in ipairs(occupied) do
    call('SCARD', queue.inprog)
    call('ZCARD', queue.deadlines)
  end
  if results[1] then call('HLEN', RESULTS) end
  if retained[1] then call('ZCARD', RETENTION) end
end

local function flush()
  look()
  for _, args in ipairs(added_to) do bulk(call, args.command, args.key, args) end
  for _, queue in ipairs(occupied) do
    bulk(call, 'SADD', queue.inprog, queue.occupied)
    bulk(call, 'ZADD', queue.deadlines, queue.ends)
    queue.occupied, queue.ends = nil, nil
  end
  for n = 1, #leases, 3 do set_lease(leases[n], leases[n + 1], leases[n + 2]) end
  if results[1] then bulk(call, 'HSET', RESULTS, results) end
  if retained[1] then bulk(call, 'ZADD', RETENTION, retained) end
  if records[1] then bulk(call, 'HSET', TASKS, records) end
  -- What is in a key of another type is nowhere that it has to be taken out of.
  for _, args in ipairs(removed_from) do bulk(try, args.command, args.key, args) end
  for list, passed in pairs(trims) do try('LTRIM', list, 0, -(passed + 1)) end
  -- Old tasks are at the end that is taken from, so the search begins there.
  for n = 1, #unlisted, 2 do try('LREM', unlisted[n], -1, unlisted[n + 1]) end
  for _, queue in ipairs(vacated) do
    local ids = queue.vacated
    queue.vacated = nil
    local found = bulk(try, 'SREM', queue.inprog, ids)
    if found ~= #ids then remove_elsewhere(queue, ids) end
    bulk(try, 'ZREM', queue.deadlines, ids)
    drop_leases(ids)
  end
  additions, added_to, results, records, retained = {}, {}, {}, {}, {}
  leases, removals, removed_from, trims, unlisted = {}, {}, {}, {}, {}
  occupied, vacated = {}, {}
end

-- Gives a task another state.
local function write(task, state)
  local text, n = task.head .. state.text .. task.times .. NOW_TEXT .. '}', #records
  task.state, task.text, task.own = state, text, false
  records[n + 1], records[n + 2] = task.id, text
end

local KEPT_UNTIL = seconds(now + KEPT_FOR)

-- Keeps a task for its retention after `last`, its last change or its next one.
local function retain(id, last)
  local n = #retained
  retained[n + 1] = last > now and seconds(last + KEPT_FOR) or KEPT_UNTIL
  retained[n + 2] = id
end

local function keep(task, state, last)
  write(task, state)
  retain(task.id, last)
end
