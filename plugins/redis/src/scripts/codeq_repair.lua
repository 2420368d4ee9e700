-- Repair in codeQ's keys: what codeQ's own servers claimed and filled, and which queues need a repair at
-- all.

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
  if not is_empty(queue) then mark_ready(queue) end
  adopt(queue, REPAIR_LIMIT)
  local due, deadline = next_due(queue), next_deadline(queue)
  if due then alarm('due', queue, due) end
  if deadline then alarm('expiring', queue, deadline) end
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

-- When the next alarm of all rings.
local function next_alarm()
  local _, due = first('codeq:x:due')
  local _, deadline = first('codeq:x:expiring')
  return (due and deadline) and min(due, deadline) or due or deadline
end

-- The queue whose turn it is among a tenant's queues with claimable tasks, the one that was served longest
-- ago, and how many of `missing` tasks it may give.
local function next_in_turn(tenant)
  local ready = 'codeq:x:ready:' .. tenant
  local base = first(ready)
  while base do
    local queue = queue_at(base)
    if queue and queue.ready == ready then return queue, 1 end
    call('ZREM', ready, base)
    base = first(ready)
  end
end

-- A queue was served as the one of that number in this call.
local function end_turn(queue, number) call('ZADD', queue.ready, whole(now_micros + number), queue.base) end
