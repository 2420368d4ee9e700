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

-- The lease key goes by a clock that is up to two milliseconds off this script's.
local CLOCKS_DIFFER = 2

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
