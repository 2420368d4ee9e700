-- Groups of requests that want the same: the tenant, how many commands, the commands in lower case (none
-- for any), how many requests. Then the requests: the worker, the same in JSON, how many tasks, for how
-- long. Answers for each request when its lease ends, how many tasks it gets, and their ids and records;
-- then what was moved.

-- Ids without a claimable task are dropped on the way, but no claim stalls the server over them.
local patience = 10000
local taken, moved = {}, 0

-- Whether an id that is in the pending list is not claimable after all.
local function is_stale(task, queue)
  if not task or is_final(task) or taken[task.id] then return true end
  if task.state.status == 'IN_PROGRESS' then return call('SISMEMBER', queue.inprog, task.id) == 1 end
  if task.state.location == 'DELAYED_ZSET' then
    local visible_at = call('ZSCORE', queue.delayed, task.id)
    if visible_at and visible_at * 1000 > now then return true end
    remove('ZREM', queue.delayed, task.id)
  end
  return false
end

-- Whether the record names the queue it was found in, and if not, whether that queue has the same keys.
-- If it has not, the task goes where it belongs.
local function belongs(task, queue)
  local other = home(task, queue)
  if other == queue then return true, false end
  if other.base == queue.base then
    register(other)
    return false, true
  end
  arrive(other, task.id, priority_of(task))
  return false, false
end

-- Takes up to `count` tasks of a queue, best first, into `out`. Answers whether it may have more.
local function take(queue, count, out)
  -- A key of another type has to fail before a task is taken out, since nothing of a script is undone.
  if not queue.level then
    call('SCARD', queue.inprog)
    queue.level, queue.filled = 9, nil
  end
  local wanted = #out + count
  while queue.level >= 0 do
    local list = queue.pending .. queue.level
    local passed = trims[list] or 0
    local missing = min(wanted - #out, patience)
    if missing <= 0 then return true end
    local ids = call('LRANGE', list, -(passed + missing), -(passed + 1))
    if ids[1] then fetch(ids) end
    -- The oldest are at the end.
    for n = #ids, 1, -1 do
      local id = ids[n]
      local task, unreadable = load(id)
      if unreadable then
        quarantine(id, queue)
      elseif not is_stale(task, queue) then
        local here, taken_over = belongs(task, queue)
        if taken_over then return false end
        if here then
          taken[id], out[#out + 1] = true, task
          register(queue)
        end
      end
      passed, patience = passed + 1, patience - 1
      trims[list] = passed
    end
    if #ids < missing then queue.level = queue.level - 1 end
  end
  call('ZREM', queue.ready, queue.base)
  return false
end

-- Whoever claims more tasks than a repair moves must not leave due ones behind.
local function repair(queue, count)
  if queue.repaired then return end
  queue.repaired = true
  local limit = max(REPAIR_LIMIT, count)
  moved = moved + come_due(queue, limit, now)
  adopt(queue, REPAIR_LIMIT)
  moved = moved + expire(queue, limit, now)
end

local function take_named(tenant, from, to, count, out)
  for n = from, to do
    local queue = queue_of(ARGV[n], tenant)
    if queue.unsharded then
      -- What is there is brought to the shard, and is claimed from it.
      repair(queue.unsharded, count)
      take(queue.unsharded, count, out)
      flush()
    end
    repair(queue, count)
    if #out < count then take(queue, count - #out, out) end
  end
end

-- From every queue of a tenant in turn, the one first that was served longest ago.
local function take_any(tenant, count, out)
  local limit = max(REPAIR_LIMIT, count)
  moved = moved + repair_tenant('due', tenant, limit, now)
    + repair_tenant('expiring', tenant, limit, now)
  local ready, turn = 'codeq:x:ready:' .. tenant, 0
  while #out < count and patience > 0 do
    local base = first(ready)
    if not base then return end
    local queue = queue_at(base)
    if not queue then
      call('ZREM', ready, base)
    elseif take(queue, 1, out) then
      turn = turn + 1
      call('ZADD', ready, whole(now_micros + turn), base)
    end
  end
end

-- Hands tasks to the requests in their order, and notes what to answer.
local function deliver(out, from, requests, handed)
  local next_task = 1
  for n = from, from + 4 * (requests - 1), 4 do
    local worker, worker_json, most = ARGV[n], ARGV[n + 1], tonumber(ARGV[n + 2])
    local lease = lease_of(worker, worker_json, now + tonumber(ARGV[n + 3]))
    local last = min(next_task + most - 1, #out)
    local count = #handed
    handed[count + 1], handed[count + 2] = lease.score, tostring(last - next_task + 1)
    count = count + 2
    for m = next_task, last do
      local task = out[m]
      hold(task, task.home, lease, 1)
      handed[count + 1], handed[count + 2] = task.id, task.text
      count = count + 2
    end
    next_task = last + 1
  end
end

local handed = {}
local n = FIRST
while n <= #ARGV do
  local tenant, commands = ARGV[n], tonumber(ARGV[n + 1])
  local first_command, last_command = n + 2, n + 1 + commands
  local requests = tonumber(ARGV[last_command + 1])
  n = last_command + 2
  local count, out = 0, {}
  for m = n, n + 4 * (requests - 1), 4 do count = count + tonumber(ARGV[m + 2]) end
  if commands > 0 then
    take_named(tenant, first_command, last_command, count, out)
  else
    take_any(tenant, count, out)
  end
  deliver(out, n, requests, handed)
  n = n + 4 * requests
end

local _, due = first('codeq:x:due')
local _, deadline = first('codeq:x:expiring')
report(handed, moved, (due and deadline) and min(due, deadline) or due or deadline)
return answer(handed)
