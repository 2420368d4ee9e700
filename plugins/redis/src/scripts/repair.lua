-- Repair: what came due or ran out of time, by the server's clock, earliest first.

-- Moves tasks of a queue whose delay was over by `til`, which is not after now. Answers how many.
local function come_due(queue, limit, til)
  local ids = call('ZRANGEBYSCORE', queue.delayed, '-inf', due_by(til), 'LIMIT', 0, limit)
  if not ids[1] then return 0 end
  local moved = 0
  fetch(ids)
  for _, id in ipairs(ids) do
    local task, unreadable = load(id)
    if unreadable then
      quarantine(id, queue)
    elseif task and task.state.status == 'PENDING' then
      -- codeQ may delay a tenant's task in the queue that has no tenant.
      arrive(home(task, queue), id, priority_of(task))
      keep(task, changed(task.state, { location = 'PENDING_LIST' }), now)
      moved = moved + 1
    end
    remove('ZREM', queue.delayed, id)
  end
  flush()
  return moved
end

-- How long a task may be in the in-progress set before codeQ writes its record and its lease.
local CLAIM_GRACE = 5000

-- When the lease of a task that codeQ claimed ends; nothing if the task is not in progress at all.
local function deadline_of(id, queue)
  local left = lease_left(id)
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
  if task.state.status == 'PENDING' then return now + CLAIM_GRACE end
  return instant(lease_until(task)) or now
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
      local left = lease_left(id)
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

-- Whether an id that is in a pending list is not claimable after all.
local function is_stale(task, queue)
  if not task or is_final(task) then return true end
  if task.state.status == 'IN_PROGRESS' then return call('SISMEMBER', queue.inprog, task.id) == 1 end
  if task.state.location == 'DELAYED_ZSET' then
    local visible_at = call('ZSCORE', queue.delayed, task.id)
    if visible_at and visible_at * 1000 > now then return true end
    remove('ZREM', queue.delayed, task.id)
  end
  return false
end

-- Brings ready tasks from keys that are no longer their queue's to where they belong. Answers how many.
local function bring(queue, limit)
  local moved, looked_at = 0, 0
  for priority = 9, 0, -1 do
    local list = queue.pending .. priority
    local ids = looked_at < limit and call('LRANGE', list, -(limit - looked_at), -1) or {}
    if ids[1] then fetch(ids) end
    for n = #ids, 1, -1 do
      local task, unreadable = load(ids[n])
      if unreadable then
        quarantine(ids[n], queue)
      elseif not is_stale(task, queue) then
        arrive(home(task, queue), ids[n], priority_of(task))
        moved = moved + 1
      end
    end
    trims[list] = #ids > 0 and #ids or nil
    looked_at = looked_at + #ids
  end
  flush()
  return moved
end

-- Makes a queue known as it is, whoever filled it.
local function notice(queue)
  register(queue)
  if queue_of(queue.command, queue.tenant) ~= queue then bring(queue, REPAIR_LIMIT) end
  if not is_empty(queue) then call('ZADD', queue.ready, 'NX', 0, queue.base) end
  adopt(queue, REPAIR_LIMIT)
  local due, deadline = next_due(queue), next_deadline(queue)
  if due then alarm('due', queue, due) end
  if deadline then alarm('expiring', queue, deadline) end
end

-- Takes back tasks of a queue whose lease had run out by `til`. Answers how many.
local function expire(queue, limit, til)
  local ids = call('ZRANGEBYSCORE', queue.deadlines, '-inf', whole(til), 'WITHSCORES', 'LIMIT', 0, limit)
  if not ids[1] then return 0 end
  local taken = 0
  for n = 1, #ids, 2 do
    local id, deadline = ids[n], tonumber(ids[n + 1])
    local left = lease_left(id)
    if call('SISMEMBER', queue.inprog, id) == 0 then
      call('ZREM', queue.deadlines, id)
    elseif left > 0 and now + left > deadline + CLOCKS_DIFFER then
      -- codeQ extends leases without telling the index.
      call('ZADD', queue.deadlines, whole(now + left), id)
    else
      local task, unreadable = load(id)
      if unreadable then
        quarantine(id, queue)
      elseif task and task.state.status == 'IN_PROGRESS' then
        if not queue.expired then
          queue.expired = 0
          expired[#expired + 1] = queue
        end
        queue.expired = queue.expired + 1
        retry_or_bury(task, home(task, queue), nil, LEASE_EXPIRED_ERROR)
        taken = taken + 1
        remove('SREM', queue.inprog, id)
        remove('ZREM', queue.deadlines, id)
      else
        -- codeQ died between taking the task and writing its lease.
        local delayed = call('ZSCORE', queue.delayed, id)
          or (task and call('ZSCORE', home(task, queue).delayed, id))
        if task and task.state.status == 'PENDING' and not delayed then
          release(task, home(task, queue), now)
          taken = taken + 1
        end
        remove('SREM', queue.inprog, id)
        remove('ZREM', queue.deadlines, id)
      end
    end
  end
  flush()
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
    if queue then queue[kind] = next end
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
