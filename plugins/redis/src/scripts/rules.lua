-- The queue's rules, as `codeq_plugin::rules` has them, and the places that follow from them.

local function backoff(attempts)
  local function clamp(wait) return max(0, min(wait, BACKOFF_MAX)) end
  if BACKOFF == 'fixed' then return clamp(BACKOFF_BASE) end
  if BACKOFF == 'linear' then return clamp(BACKOFF_BASE * max(1, attempts)) end
  local wait = clamp(BACKOFF_BASE * 2 ^ min(attempts, 62))
  if BACKOFF == 'exponential' then return wait end
  if BACKOFF == 'exp_equal_jitter' then
    local half = floor(wait / 2)
    return half + floor((wait - half) * math.random() + 0.5)
  end
  return floor(wait * math.random() + 0.5)
end

-- The task that a worker holds; else nothing, what is wrong, and a detail of it.
local function fence(id, tenant, worker, attempt)
  local task, unreadable = load(id)
  if unreadable then return nil, 'CORRUPT' end
  local state = task and task.state
  if not task or state.tenant ~= tenant then return nil, 'NOT_FOUND' end
  if state.status == 'PENDING' and task.text == texts[id] and lease_holder(id) == worker then
    -- A codeQ server that moved it to the ready tasks wrote its record after it was claimed here.
    state = changed(state, { status = 'IN_PROGRESS', worker = worker, attempts = state.attempts + 1 })
    task.state = state
  end
  if state.status ~= 'IN_PROGRESS' then return nil, 'NOT_IN_PROGRESS', state.status end
  if state.worker ~= worker then return nil, 'NOT_OWNER' end
  if attempt ~= 0 and attempt ~= state.attempts then
    return nil, 'NOT_OWNER', tostring(state.attempts)
  end
  return task
end

-- A lease until `deadline`, of a worker whose name is also given in JSON.
local function lease_of(worker, worker_json, deadline)
  return {
    worker = worker, deadline = deadline, score = whole(deadline), millis = whole(max(1, deadline - now)),
    held = ',"workerId":' .. worker_json .. ',"leaseUntil":"' .. date(deadline, 0) .. 'Z"',
    states = {},
  }
end

-- Leases a task, for one more attempt or for none. The lease key is for codeQ; the deadline's own index
-- is exact.
local function hold(task, queue, lease, more)
  local id, before = task.id, task.state
  local ids, ends = queue.occupied, queue.ends
  if not ids then
    ids, ends = {}, {}
    queue.occupied, queue.ends, occupied[#occupied + 1] = ids, ends, queue
  end
  local n = #ids
  ids[n + 1], ends[2 * n + 1], ends[2 * n + 2] = id, lease.score, id
  n = #leases
  leases[n + 1], leases[n + 2], leases[n + 3] = id, lease.worker, lease.millis
  alarm('expiring', queue, lease.deadline)
  -- The cleanup looks at deadlines; so the retention may stay a minute behind, which saves a write.
  if not is_of_this_minute(task) then retain(id, now) end
  local state = lease.states[before]
  if not state then
    state = changed(before, { status = 'IN_PROGRESS', location = 'INPROG_SET',
      worker = lease.worker, held = lease.held, attempts = before.attempts + more })
    lease.states[before] = state
  end
  write(task, state)
end

-- Takes a task out of the hands of its worker.
local function leave(task, queue)
  local ids = queue.vacated
  if not ids then
    ids = {}
    queue.vacated, vacated[#vacated + 1] = ids, queue
  end
  ids[#ids + 1] = task.id
  if queue.unsharded then leave(task, queue.unsharded) end
end

-- Puts a task back into its queue, in its state but for `changes`. Answers whether the queue had no
-- claimable task before.
local function release(task, queue, visible_at, changes)
  local awoke = false
  changes = changes or {}
  changes.status, changes.worker, changes.held = 'PENDING', '', ''
  if visible_at > now then
    changes.location = 'DELAYED_ZSET'
    add('ZADD', queue.delayed, seconds(visible_at), task.id)
    alarm('due', queue, visible_at)
  else
    changes.location = 'PENDING_LIST'
    awoke = arrive(queue, task.id, priority_of(task))
  end
  keep(task, changed(task.state, changes), visible_at)
  return awoke
end

local MAX_ATTEMPTS_ERROR, LEASE_EXPIRED_ERROR = '"MAX_ATTEMPTS"', '"LEASE_EXPIRED"'

-- Takes a failed task back. Answers the delay, and whether its queue had no claimable task before.
local function retry_or_bury(task, queue, delay, reason)
  local before = task.state
  local limit = before.limit > 0 and before.limit or MAX_ATTEMPTS
  local over = before.attempts >= limit
  local failure = before.failure
  if over or reason ~= MAX_ATTEMPTS_ERROR then failure = ',"error":' .. reason end
  leave(task, queue)
  if over then
    add('SADD', dead_letters(queue), task.id)
    register(queue)
    keep(task, changed(before, { status = 'FAILED', location = 'DLQ_SET', worker = '', held = '',
      failure = failure }), now)
    dead[#dead + 1], finished[#finished + 1] = task, task
    return 0, false
  end
  delay = delay and max(0, min(delay, BACKOFF_MAX)) or backoff(before.attempts)
  return delay, release(task, queue, now + delay, { failure = failure })
end

-- Takes a task out of the dead letters.
local function exhume(task, queue)
  for _, places in ipairs({ queue, queue.unsharded }) do
    remove('SREM', dead_letters(places), task.id)
  end
end

local function is_exhumable(task, queue)
  for _, places in ipairs({ queue, queue.unsharded }) do
    if call('SISMEMBER', dead_letters(places), task.id) == 1 then return true end
  end
  return false
end

-- Takes a task out of whatever place it is in.
local function withdraw(task, queue)
  local state = task.state
  if state.status == 'PENDING' then
    if state.location ~= 'DELAYED_ZSET' then
      local n = #unlisted
      unlisted[n + 1], unlisted[n + 2] = queue.pending .. priority_of(task), task.id
    end
    for _, places in ipairs({ queue, queue.unsharded }) do remove('ZREM', places.delayed, task.id) end
  end
  if state.status == 'FAILED' then exhume(task, queue) end
  leave(task, queue)
end

-- How tasks end. `failure` and `outcome` are members of the record, or empty.
local function ending_of(status, failure, outcome)
  return { status = status, failure = failure, outcome = outcome, states = {} }
end

-- Brings a task to its end.
local function finish(task, queue, ending)
  local before = task.state
  withdraw(task, queue)
  local state = ending.states[before]
  if not state then
    state = changed(before, { status = ending.status, location = 'NONE', worker = '', held = '',
      failure = ending.failure, outcome = ending.outcome })
    ending.states[before] = state
  end
  finished[#finished + 1] = task
  keep(task, state, now)
end

-- Removes every trace of a task.
local function forget(task, queue)
  withdraw(task, queue)
  local id = task.id
  remove('HDEL', TASKS, id)
  remove('HDEL', RESULTS, id)
  remove('ZREM', RETENTION, id)
  remove('HDEL', CORRUPT, id)
  texts[id], tasks[id] = false, false
end

-- Items that are about leases come in groups: `=`, a tenant, a worker, what else the items of the group
-- share; and then the items, each an attempt, an id, and what else it has. `act` is given the task,
-- where its group begins, and where the item does.
local function each_lease(shared, width, say, act)
  local n, ids = FIRST, {}
  while n <= #ARGV do
    if ARGV[n] == '=' then
      n = n + 3 + shared
    else
      ids[#ids + 1] = ARGV[n + 1]
      n = n + 2 + width
    end
  end
  fetch(ids)
  local group
  n = FIRST
  while n <= #ARGV do
    if ARGV[n] == '=' then
      group = n
      n = n + 3 + shared
    else
      local id = ARGV[n + 1]
      local task, code, detail = fence(id, ARGV[group + 1], ARGV[group + 2], tonumber(ARGV[n]))
      if task then act(task, group + 3, n + 2) else say(code, detail) end
      n = n + 2 + width
    end
  end
end
