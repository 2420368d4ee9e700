-- Queues: which one a task belongs to, what happened to them in this call, and what is answered.

local arrivals, expired, dead, finished, corrupt = {}, {}, {}, {}, {}

local homes = {}

-- The queue that a task names, which it was perhaps not found in.
local function home(task, found_in)
  local queue = task.home
  if queue then return queue end
  local command, tenant = command_of(task), task.state.tenant
  if not command then
    task.home = found_in or queue_of('', tenant)
    return task.home
  end
  local of_tenant = homes[tenant]
  if not of_tenant then
    of_tenant = {}
    homes[tenant] = of_tenant
  end
  queue = of_tenant[command]
  if not queue then
    queue = queue_of(lower_of(command, tenant, found_in), tenant)
    of_tenant[command] = queue
  end
  task.home = queue
  return queue
end

local function is_empty(queue)
  local p = queue.pending
  return call('EXISTS', p .. 0, p .. 1, p .. 2, p .. 3, p .. 4, p .. 5, p .. 6, p .. 7, p .. 8,
    p .. 9) == 0
end

-- Puts a task at the back of its priority. Answers whether the queue had no claimable task before.
local function arrive(queue, id, priority)
  local awoke = false
  if not queue.filled then
    register(queue)
    awoke = is_empty(queue)
    mark_ready(queue)
    queue.filled = true
  end
  add('LPUSH', queue.pending .. priority, id)
  if not queue.arrived then
    queue.arrived, queue.awoke = 0, false
    arrivals[#arrivals + 1] = queue
  end
  queue.arrived, queue.awoke = queue.arrived + 1, queue.awoke or awoke
  return awoke
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
  drop_leases({ id })
end

-- Tells other hosts what they may be waiting for: arrivals by queue, ends by tenant.
local function publish()
  local events, count = { INSTANCE }, 1
  for _, queue in ipairs(arrivals) do
    events[count + 1], events[count + 2], events[count + 3] = 'A', queue.command, queue.tenant
    events[count + 4], events[count + 5] = tostring(queue.arrived), queue.awoke and '1' or '0'
    count = count + 5
  end
  local tenant, ends_at, ids
  for _, task in ipairs(finished) do
    if task.state.tenant ~= tenant then
      tenant, ends_at, ids = task.state.tenant, count + 3, 0
      events[count + 1], events[count + 2] = 'F', tenant
      count = count + 3
    end
    count, ids = count + 1, ids + 1
    events[count], events[ends_at] = task.id, tostring(ids)
  end
  -- The work is done, whoever hears of it: a user may lack the right to the channel.
  if count > 1 then try('PUBLISH', EVENTS, cjson.encode(events)) end
end

-- Writes what is to be written. What the script answers: the time, the ids of unreadable records, and
-- `body`.
local function answer(body)
  flush()
  publish()
  return { whole(now), corrupt, body }
end

-- A record behind the deadline of its lease, if it has one, and a blank.
local function with_deadline(task, text)
  local deadline = task and task.state.status == 'IN_PROGRESS'
    and call('ZSCORE', home(task).deadlines, task.id)
  return (deadline and whole(tonumber(deadline)) or '') .. ' ' .. text
end

-- Appends what a repair moved, as `Moved` reads it.
local function report(body, count, next)
  local function append(...)
    for n = 1, select('#', ...) do body[#body + 1] = tostring((select(n, ...))) end
  end
  append(count, next and whole(next) or '', #arrivals)
  for _, queue in ipairs(arrivals) do
    append(queue.command, queue.tenant, queue.arrived, queue.awoke and 1 or 0)
  end
  append(#expired)
  for _, queue in ipairs(expired) do append(queue.command, queue.tenant, queue.expired) end
  append(#dead)
  for _, task in ipairs(dead) do append(task.text) end
end

-- Items of a batch are answered by a text each, what became of it (`+`, or what was wrong), and so many
-- more, as the script says: what was asked for, or a detail.
local function answers(width)
  local body, n = {}, 0
  local function say(what, a, b, c)
    body[n + 1], body[n + 2] = what, a or ''
    if width > 1 then body[n + 3] = b or '' end
    if width > 2 then body[n + 4] = c or '' end
    n = n + 1 + width
  end
  return body, say
end
