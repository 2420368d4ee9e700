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
  if not task or task.tenant ~= tenant then return nil, 'NOT_FOUND' end
  if task.status ~= 'IN_PROGRESS' then return nil, 'NOT_IN_PROGRESS', task.status end
  if task.worker ~= worker then return nil, 'NOT_OWNER' end
  if attempt ~= 0 and attempt ~= task.attempts then
    return nil, 'NOT_OWNER', tostring(task.attempts)
  end
  return task
end

-- Writes a task back. It is kept for its retention after `last`, its last change or its next one.
local function keep(task, last)
  task.text = rendered(task)
  call('HSET', TASKS, task.id, task.text)
  call('ZADD', RETENTION, seconds(max(last, now) + KEPT_FOR), task.id)
end

local function set_state(task, status, location)
  task.status, task.location = status, location
  set(task, 'status', '"' .. status .. '"')
  set(task, 'lastKnownLocation', '"' .. location .. '"')
end

local function set_attempts(task, attempts)
  task.attempts = attempts
  set(task, 'attempts', attempts > 0 and whole(attempts) or nil)
end

-- Leases a task until `deadline`. The lease key is for codeQ; the deadline's own index is exact.
local function hold(task, queue, deadline)
  set(task, 'leaseUntil', '"' .. date(deadline, 0) .. 'Z"')
  set(task, 'updatedAt', NOW_TEXT)
  call('SADD', queue.inprog, task.id)
  call('ZADD', queue.deadlines, whole(deadline), task.id)
  call('SET', 'codeq:lease:' .. task.id, task.worker, 'PX', whole(max(1, deadline - now)))
  alarm('expiring', queue, deadline)
  keep(task, deadline)
end

-- Takes a task out of the hands of its worker.
local function leave(task, queue)
  -- Some codeQ versions name a tenant's in-progress task in the set without the tenant.
  if call('SREM', queue.inprog, task.id) == 0 and task.tenant ~= '' then
    call('SREM', base_of(queue.command, '') .. ':inprog', task.id)
  end
  call('ZREM', queue.deadlines, task.id)
  call('DEL', 'codeq:lease:' .. task.id)
end

local function free(task)
  task.worker = ''
  set(task, 'workerId', nil)
  set(task, 'leaseUntil', nil)
  set(task, 'updatedAt', NOW_TEXT)
end

-- Puts a task back into its queue. Answers whether the queue had no claimable task before.
local function release(task, queue, visible_at)
  free(task)
  local awoke = false
  if visible_at > now then
    set_state(task, 'PENDING', 'DELAYED_ZSET')
    call('ZADD', queue.delayed, seconds(visible_at), task.id)
    alarm('due', queue, visible_at)
  else
    set_state(task, 'PENDING', 'PENDING_LIST')
    awoke = arrive(queue, task)
  end
  keep(task, visible_at)
  return awoke
end

local MAX_ATTEMPTS_ERROR, LEASE_EXPIRED_ERROR = '"MAX_ATTEMPTS"', '"LEASE_EXPIRED"'

-- Takes a failed task back. Answers the delay, and whether its queue had no claimable task before.
local function retry_or_bury(task, queue, delay, reason)
  local limit = task.limit > 0 and task.limit or MAX_ATTEMPTS
  local over = task.attempts >= limit
  if over or reason ~= MAX_ATTEMPTS_ERROR then set(task, 'error', reason) end
  -- Into its new place first: if the server refuses that, because of the type of a key, the task is
  -- still where it was.
  if over then
    free(task)
    set_state(task, 'FAILED', 'DLQ_SET')
    call('SADD', dead_letters(queue), task.id)
    register(queue)
    keep(task, now)
    leave(task, queue)
    dead[#dead + 1], finished[#finished + 1] = task, task
    return 0, false
  end
  delay = delay and max(0, min(delay, BACKOFF_MAX)) or backoff(task.attempts)
  local awoke = release(task, queue, now + delay)
  leave(task, queue)
  return delay, awoke
end

local function leave_pending(task, queue)
  -- Old tasks are at the end that is taken from, so the search begins there.
  call('LREM', queue.pending .. task.priority, -1, task.id)
end

-- Takes a task out of whatever place it is in.
local function withdraw(task, queue)
  if task.status == 'PENDING' then
    if task.location ~= 'DELAYED_ZSET' then leave_pending(task, queue) end
    call('ZREM', queue.delayed, task.id)
  end
  if task.status == 'FAILED' then call('SREM', dead_letters(queue), task.id) end
  leave(task, queue)
end

-- Brings a task to its end. `error` is JSON.
local function finish(task, queue, status, error, result_key)
  withdraw(task, queue)
  free(task)
  set_state(task, status, 'NONE')
  set(task, 'error', error ~= '""' and error or nil)
  set(task, 'resultKey', result_key ~= '""' and result_key or nil)
  finished[#finished + 1] = task
  keep(task, now)
end

-- Removes every trace of a task.
local function forget(task, queue)
  withdraw(task, queue)
  call('HDEL', TASKS, task.id)
  call('HDEL', RESULTS, task.id)
  call('ZREM', RETENTION, task.id)
  call('HDEL', CORRUPT, task.id)
end

-- Repair: what came due or ran out of time, by the server's clock, earliest first.

-- Moves tasks of a queue whose delay was over by `til`, which is not after now. Answers how many.
local function come_due(queue, limit, til)
  local ids = call('ZRANGEBYSCORE', queue.delayed, '-inf', due_by(til), 'LIMIT', 0, limit)
  local moved = 0
  for _, id in ipairs(ids) do
    local task, unreadable = load(id)
    if unreadable then
      quarantine(id, queue)
    elseif task and task.status == 'PENDING' then
      -- codeQ may delay a tenant's task in the queue that has no tenant.
      set_state(task, 'PENDING', 'PENDING_LIST')
      set(task, 'updatedAt', NOW_TEXT)
      arrive(home(task, queue), task)
      keep(task, now)
      moved = moved + 1
    end
    call('ZREM', queue.delayed, id)
  end
  return moved
end

-- How long a task may be in the in-progress set before codeQ writes its record and its lease.
local CLAIM_GRACE = 5000

-- When the lease of a task that codeQ claimed ends; nothing if the task is not in progress at all.
local function deadline_of(id, queue)
  local left = call('PTTL', 'codeq:lease:' .. id)
  if left > 0 then return now + left end
  local task, unreadable = load(id)
  if unreadable then
    quarantine(id, queue)
    return nil
  end
  if not task or is_final(task) then
    call('SREM', queue.inprog, id)
    return nil
  end
  if task.status == 'PENDING' then return now + CLAIM_GRACE end
  return instant(text_of(task, 'leaseUntil') or '') or now
end

-- The lease key goes by a clock that is up to two milliseconds off this script's.
local CLOCKS_DIFFER = 2

-- How long a part of the in-progress set is taken for searched, if all of it seems to have deadlines.
-- It may only seem so: the deadline of a task that codeQ took back stays behind and counts.
local SEARCHED_FOR = 1000

-- By how much a lease has to end earlier than the index says to be another one. The server's clocks
-- drift apart by milliseconds while a script waits for the processor; codeQ leases for whole seconds.
local ANOTHER_LEASE = 500

-- Gives deadlines to tasks that codeQ claimed, and earlier ones to those that it claimed again for
-- less time. Each call searches one part of the set, so that all of it is searched in turn.
local function adopt(queue, limit)
  local claimed, known = call('SCARD', queue.inprog), call('ZCARD', queue.deadlines)
  if claimed == 0 then return end
  local from, searched_at = '0', 0
  local before = call('HGET', 'codeq:x:adopting', queue.base)
  if before then
    from, searched_at = before:match('^(%S+) ?(%d*)')
    searched_at = tonumber(searched_at) or 0
  end
  if claimed <= known and now < searched_at + SEARCHED_FOR then return end
  local part = call('SSCAN', queue.inprog, from, 'COUNT', limit)
  call('HSET', 'codeq:x:adopting', queue.base, part[1] .. ' ' .. whole(now))
  for _, id in ipairs(part[2]) do
    local indexed = tonumber(call('ZSCORE', queue.deadlines, id) or nil)
    local deadline
    if indexed then
      local left = call('PTTL', 'codeq:lease:' .. id)
      if left > 0 and now + left + ANOTHER_LEASE < indexed then deadline = now + left end
    else
      deadline = deadline_of(id, queue)
    end
    if deadline then
      call('ZADD', queue.deadlines, whole(deadline), id)
      alarm('expiring', queue, deadline)
    end
  end
end

-- Makes a queue known as it is, whoever filled it.
local function notice(queue)
  register(queue)
  if not is_empty(queue) then call('ZADD', queue.ready, 'NX', 0, queue.base) end
  adopt(queue, REPAIR_LIMIT)
  local due, deadline = next_due(queue), next_deadline(queue)
  if due then alarm('due', queue, due) end
  if deadline then alarm('expiring', queue, deadline) end
end

-- Takes back tasks of a queue whose lease had run out by `til`. Answers how many.
local function expire(queue, limit, til)
  local ids = call('ZRANGEBYSCORE', queue.deadlines, '-inf', whole(til), 'WITHSCORES', 'LIMIT', 0, limit)
  local taken = 0
  for n = 1, #ids, 2 do
    local id, deadline = ids[n], tonumber(ids[n + 1])
    local left = call('PTTL', 'codeq:lease:' .. id)
    if call('SISMEMBER', queue.inprog, id) == 0 then
      call('ZREM', queue.deadlines, id)
    elseif left > 0 and now + left > deadline + CLOCKS_DIFFER then
      -- codeQ extends leases without telling the index.
      call('ZADD', queue.deadlines, whole(now + left), id)
    else
      local task, unreadable = load(id)
      if unreadable then
        quarantine(id, queue)
      elseif task and task.status == 'IN_PROGRESS' then
        if not queue.expired then
          queue.expired = 0
          expired[#expired + 1] = queue
        end
        queue.expired = queue.expired + 1
        retry_or_bury(task, home(task, queue), nil, LEASE_EXPIRED_ERROR)
        taken = taken + 1
        call('SREM', queue.inprog, id)
        call('ZREM', queue.deadlines, id)
      else
        -- codeQ died between taking the task and writing its lease.
        if task and task.status == 'PENDING' and not call('ZSCORE', queue.delayed, id) then
          release(task, home(task, queue), now)
          taken = taken + 1
        end
        call('SREM', queue.inprog, id)
        call('ZREM', queue.deadlines, id)
      end
    end
  end
  return taken
end

local MOVES = {
  due = { move = come_due, next = next_due },
  expiring = { move = expire, next = next_deadline },
}

-- Moves what was over by `til` in the queues of a tenant whose alarm has rung. Answers how many tasks.
local function repair_tenant(kind, tenant, limit, til)
  local key, moved = 'codeq:x:' .. kind .. ':' .. tenant, 0
  local base, at, following = first(key)
  while base and at <= til and moved < limit do
    local queue = queue_at(base)
    local next = nil
    if queue then
      -- As far as the next queue's alarm, so that the earliest of all come first.
      moved = moved + MOVES[kind].move(queue, limit - moved, min(til, following or til))
      next = MOVES[kind].next(queue)
    end
    reset(key, base, next)
    base, at, following = first(key)
  end
  reset('codeq:x:' .. kind, tenant, at)
  return moved
end

-- The same for all tenants. Also answers when the next alarm rings.
local function repair_all(kind, limit)
  local moved = 0
  local tenant, at, following = first('codeq:x:' .. kind)
  while tenant and at <= now and moved < limit do
    moved = moved + repair_tenant(kind, tenant, limit - moved, min(now, following or now))
    tenant, at, following = first('codeq:x:' .. kind)
  end
  return moved, at
end
