-- Queues: their keys, who owns them, and what happened to them in this call.
--
-- codeQ's own keys say where a task is. Beside them this plugin keeps, under `codeq:x:`, what codeQ
-- leaves to chance; all of it can be rebuilt from codeQ's keys, and follows them where they differ:
--
--   codeq:x:queues             queue key -> length of command ':' command tenant
--   codeq:x:lower              command -> the same in lower case, for those that are not ASCII
--   codeq:x:deadlines:<queue>  id by the millisecond in which its lease ends
--   codeq:x:due                tenant by when to look for delayed tasks; due:<tenant>: queue by that
--   codeq:x:expiring           the same for leases
--   codeq:x:ready:<tenant>     queue with claimable tasks by when it was last served
--   codeq:x:adopting           queue -> how far its in-progress set was searched, and when
--   codeq:x:corrupt            id of a record that cannot be read -> its hash, queue it was found in

local QUEUES, LOWER = 'codeq:x:queues', 'codeq:x:lower'

local by_owner, by_base = {}, {}
local arrivals, expired, dead, finished, corrupt = {}, {}, {}, {}, {}

-- Redis's Lua knows the case of ASCII only. Hosts teach it the others, command by command.
local function lower(command)
  if not find(command, '[\128-\255]') then return string.lower(command) end
  return call('HGET', LOWER, command) or string.lower(command)
end

local function teach(command, lowered)
  if find(command, '[\128-\255]') then call('HSET', LOWER, command, lowered) end
end

local function base_of(command, tenant)
  return 'codeq:q:' .. command .. (tenant == '' and '' or ':' .. tenant)
end

local function known(base, command, tenant, registered)
  local queue = {
    base = base, command = command, tenant = tenant, registered = registered,
    owner = #command .. ':' .. command .. tenant,
    pending = base .. ':pending:', inprog = base .. ':inprog',
    delayed = base .. ':delayed', dlq = base .. ':dlq',
    deadlines = 'codeq:x:deadlines:' .. base, ready = 'codeq:x:ready:' .. tenant,
  }
  by_owner[queue.owner], by_base[base] = queue, queue
  return queue
end

-- The queue of a command, in lower case, and a tenant. codeQ's key of command `a`, tenant `b` is also
-- that of command `a:b` without a tenant; whoever used it first has it, the other gets its own.
local function queue_of(command, tenant)
  local owner = #command .. ':' .. command .. tenant
  local queue = by_owner[owner]
  if queue then return queue end
  local base = base_of(command, tenant)
  local holder = call('HGET', QUEUES, base)
  if holder and holder ~= owner then
    base = 'codeq:x:q:' .. owner
    holder = call('HGET', QUEUES, base)
  end
  return known(base, command, tenant, holder and true or false)
end

-- The queue of a key; nothing if nobody registered it.
local function queue_at(base)
  local queue = by_base[base]
  if queue then return queue end
  local owner = call('HGET', QUEUES, base)
  if not owner then return nil end
  local length, rest = owner:match('^(%d+):(.*)$')
  return known(base, sub(rest, 1, length), sub(rest, length + 1), true)
end

local function register(queue)
  if queue.registered then return end
  call('HSET', QUEUES, queue.base, queue.owner)
  queue.registered = true
end

-- The queue that a task names. Where it was found tells how to spell the command in lower case, if
-- codeQ wrote the task and nobody taught the server yet.
local function home(task, found_in)
  if not task.home then
    local lowered = lower(task.command)
    if found_in and lowered ~= found_in.command and task.tenant == found_in.tenant
      and find(task.command, '[\128-\255]') and call('HEXISTS', LOWER, task.command) == 0 then
      lowered = found_in.command
      teach(task.command, lowered)
    end
    task.home = queue_of(lowered, task.tenant)
  end
  return task.home
end

local function is_empty(queue)
  local p = queue.pending
  return call('EXISTS', p .. 0, p .. 1, p .. 2, p .. 3, p .. 4, p .. 5, p .. 6, p .. 7, p .. 8,
    p .. 9) == 0
end

-- Puts a task at the back of its priority. Answers whether the queue had no claimable task before.
local function arrive(queue, task)
  register(queue)
  local awoke = not queue.filled and is_empty(queue)
  call('LPUSH', queue.pending .. task.priority, task.id)
  if not queue.filled then call('ZADD', queue.ready, 'NX', 0, queue.base) end
  queue.filled = true
  if not queue.arrived then
    queue.arrived, queue.awoke = 0, false
    arrivals[#arrivals + 1] = queue
  end
  queue.arrived, queue.awoke = queue.arrived + 1, queue.awoke or awoke
  return awoke
end

-- Makes sure that `kind` of thing is looked for in a queue at `at`. An alarm is set earlier, never
-- later, so the usual life of a lease, which ends long before its deadline, costs one look-up.
local function alarm(kind, queue, at)
  local mine = 'codeq:x:' .. kind .. ':' .. queue.tenant
  local before = call('ZSCORE', mine, queue.base)
  if before and tonumber(before) <= at then return end
  register(queue)
  call('ZADD', mine, whole(at), queue.base)
  before = call('ZSCORE', 'codeq:x:' .. kind, queue.tenant)
  if not before or tonumber(before) > at then
    call('ZADD', 'codeq:x:' .. kind, whole(at), queue.tenant)
  end
end

-- Sets an alarm to `at`, earlier or later; without a time it is taken away.
local function reset(key, member, at)
  if at then call('ZADD', key, whole(at), member) else call('ZREM', key, member) end
end

-- The first member of a sorted set, its score, and that of the second one.
local function first(key)
  local head = call('ZRANGE', key, 0, 1, 'WITHSCORES')
  return head[1], tonumber(head[2]), tonumber(head[4])
end

-- Scores are seconds, so milliseconds come out of them a little off; codeQ's have finer fractions.
local ROUNDING = 0.01

local function next_due(queue)
  local id, at = first(queue.delayed)
  return id and math.ceil(at * 1000 - ROUNDING)
end

-- The highest score of what is due at `til`, as `next_due` counts.
local function due_by(til) return fmt('%.5f', (til + ROUNDING) / 1000) end

local function next_deadline(queue)
  local id, at = first(queue.deadlines)
  return id and at
end

-- Old codeQ versions kept dead letters in a list, newer ones (and this plugin) in a set.
local function dead_letters(queue)
  if call('TYPE', queue.dlq).ok == 'list' then
    local ids = call('LRANGE', queue.dlq, 0, -1)
    call('DEL', queue.dlq)
    for _, id in ipairs(ids) do call('SADD', queue.dlq, id) end
  end
  return queue.dlq
end

-- Keeps a record that cannot be read out of the way, until somebody changes it.
local function quarantine(id, queue)
  corrupt[#corrupt + 1] = id
  local text = call('HGET', TASKS, id) or ''
  call('HSET', CORRUPT, id, redis.sha1hex(text) .. ' ' .. queue.base)
  call('ZREM', queue.delayed, id)
  call('SREM', queue.inprog, id)
  call('ZREM', queue.deadlines, id)
  call('DEL', 'codeq:lease:' .. id)
end

-- What the script answers: the time, the ids of unreadable records, and `body`. Tells other hosts
-- what they may be waiting for.
local function answer(body)
  local events = {}
  local function event(...)
    for n = 1, select('#', ...) do events[#events + 1] = (select(n, ...)) end
  end
  for _, queue in ipairs(arrivals) do
    event('A', queue.command, queue.tenant, tostring(queue.arrived), queue.awoke and '1' or '0')
  end
  for _, task in ipairs(finished) do event('F', task.id, task.tenant) end
  if #events > 0 then
    table.insert(events, 1, INSTANCE)
    -- The work is done, whoever hears of it: a user may lack the right to the channel.
    redis.pcall('PUBLISH', 'codeq:x:events', cjson.encode(events))
  end
  local reply = { whole(now), tostring(#corrupt) }
  for _, id in ipairs(corrupt) do reply[#reply + 1] = id end
  for _, part in ipairs(body) do reply[#reply + 1] = part end
  return reply
end

-- Appends what a repair moved, as `Moved` reads it.
local function report(body, count, next)
  local function add(...)
    for n = 1, select('#', ...) do body[#body + 1] = tostring((select(n, ...))) end
  end
  add(count, next and whole(next) or '', #arrivals)
  for _, queue in ipairs(arrivals) do
    add(queue.command, queue.tenant, queue.arrived, queue.awoke and 1 or 0)
  end
  add(#expired)
  for _, queue in ipairs(expired) do add(queue.command, queue.tenant, queue.expired) end
  add(#dead)
  for _, task in ipairs(dead) do add(task.text) end
end

-- Items of a batch are answered by four texts each: what became of it (`+`, or what was wrong), and
-- what was asked for, or a detail.
local function say(body, what, a, b, c)
  local n = #body
  body[n + 1], body[n + 2], body[n + 3], body[n + 4] = what, a or '', b or '', c or ''
end

local function done(body, a, b, c) say(body, '+', a, b, c) end
