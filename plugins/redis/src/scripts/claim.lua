-- Groups of requests that want the same: the tenant, how many commands, the commands in lower case (none
-- for any), how many requests. Then the requests: the worker, the same in JSON, how many tasks, for how
-- long. Answers for each request when its lease ends, how many tasks it gets, and their ids and records;
-- then what was moved.

-- Ids without a claimable task are dropped on the way, but no claim stalls the server over them.
local PATIENCE = 10000
local patience
local taken, moved = {}, 0

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
  moved = moved + 1
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
      elseif not taken[id] and not is_stale(task, queue) then
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
  mark_drained(queue)
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

-- What has to be done before anything is taken from the queues of a group: nothing that was taken is
-- anybody's until the script has come to its end.
local function prepare(group)
  local limit = max(REPAIR_LIMIT, group.count)
  if group.any then
    moved = moved + repair_tenant('due', group.tenant, limit, now)
      + repair_tenant('expiring', group.tenant, limit, now)
    return
  end
  for _, queue in ipairs(group.queues) do
    if queue.unsharded then
      repair(queue.unsharded, group.count)
      moved = moved + bring(queue.unsharded, limit)
    end
    repair(queue, group.count)
  end
end

local function take_named(group, out)
  for _, queue in ipairs(group.queues) do
    if #out < group.count then take(queue, group.count - #out, out) end
  end
end

-- From every queue of a tenant in turn, the one first that was served longest ago.
local function take_any(group, out)
  local turn = 0
  while #out < group.count and patience > 0 do
    local queue, share = next_in_turn(group.tenant, group.count - #out)
    if not queue then return end
    if take(queue, share, out) then
      turn = turn + 1
      end_turn(queue, turn)
    end
  end
end

-- Hands tasks to the requests of a group in their order, and notes what to answer.
local function deliver(group, handed)
  local next_task, out = 1, group.out
  for n = group.from, group.to, 4 do
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

local groups = {}
local n = FIRST
while n <= #ARGV do
  local commands = tonumber(ARGV[n + 1])
  local from = n + 3 + commands
  local group = { tenant = ARGV[n], any = commands == 0, queues = {}, count = 0, out = {},
    from = from, to = from + 4 * (tonumber(ARGV[from - 1]) - 1) }
  for m = n + 2, n + 1 + commands do
    group.queues[#group.queues + 1] = queue_of(ARGV[m], group.tenant)
  end
  for m = group.from, group.to, 4 do group.count = group.count + tonumber(ARGV[m + 2]) end
  groups[#groups + 1] = group
  n = group.to + 4
end

for _, group in ipairs(groups) do prepare(group) end
for _, group in ipairs(groups) do
  patience = floor(PATIENCE / #groups)
  if group.any then take_any(group, group.out) else take_named(group, group.out) end
end
local handed = {}
for _, group in ipairs(groups) do deliver(group, handed) end
-- Where a task was brought that belongs there, there is something to claim again.
for _, queue in ipairs(arrivals) do mark_ready(queue) end

report(handed, moved, next_alarm())
return answer(handed)
