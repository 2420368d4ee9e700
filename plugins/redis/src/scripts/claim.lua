-- The worker, the same in JSON, tenant, how many, for how long; then the commands in lower case.

local worker, worker_json, tenant = ARGV[FIRST], ARGV[FIRST + 1], ARGV[FIRST + 2]
local most, lease = tonumber(ARGV[FIRST + 3]), tonumber(ARGV[FIRST + 4])
local claimed, moved = {}, 0
-- Whoever claims more tasks than a repair moves must not leave due ones behind.
local repaired = max(REPAIR_LIMIT, most)
-- Ids without a claimable task are dropped on the way, but no claim stalls the server over them.
local patience = 10000

-- Whether an id that was in the pending list is not claimable after all.
local function is_stale(task, queue)
  if not task or is_final(task) then return true end
  if task.status == 'IN_PROGRESS' then return call('SISMEMBER', queue.inprog, task.id) == 1 end
  if task.location == 'DELAYED_ZSET' then
    local visible_at = call('ZSCORE', queue.delayed, task.id)
    if visible_at and visible_at * 1000 > now then return true end
    call('ZREM', queue.delayed, task.id)
  end
  return false
end

-- Whether the record names the queue it was found in. If not, the task goes where it belongs.
local function belongs(task, queue, list)
  local other = home(task, queue)
  if other == queue then return true end
  if other.base == queue.base then
    call('RPUSH', list, task.id)
    register(other)
    return false, true
  end
  arrive(other, task)
  return false
end

local function deliver(task, queue)
  task.worker = worker
  set(task, 'workerId', worker_json)
  set_state(task, 'IN_PROGRESS', 'INPROG_SET')
  set_attempts(task, task.attempts + 1)
  hold(task, queue, now + lease)
  claimed[#claimed + 1] = task
end

-- Takes up to `count` tasks of a queue, best first. Answers whether it may have more.
local function take(queue, count)
  local priority, taken = 9, 0
  -- A key of another type has to fail before a task is taken out, since nothing of a script is undone.
  call('SCARD', queue.inprog)
  while priority >= 0 do
    if taken == count or patience == 0 then return true end
    local list = queue.pending .. priority
    local id = call('RPOP', list)
    if not id then
      priority = priority - 1
    else
      patience = patience - 1
      queue.filled = nil
      local task, unreadable = load(id)
      if unreadable then
        quarantine(id, queue)
      elseif not is_stale(task, queue) then
        local here, taken_over = belongs(task, queue, list)
        if taken_over then return false end
        if here then
          register(queue)
          deliver(task, queue)
          taken = taken + 1
        end
      end
    end
  end
  call('ZREM', queue.ready, queue.base)
  return false
end

if #ARGV >= FIRST + 5 then
  for n = FIRST + 5, #ARGV do
    local queue = queue_of(ARGV[n], tenant)
    moved = moved + come_due(queue, repaired, now)
    adopt(queue, REPAIR_LIMIT)
    moved = moved + expire(queue, repaired, now)
    if #claimed < most then take(queue, most - #claimed) end
  end
else
  moved = repair_tenant('due', tenant, repaired, now) + repair_tenant('expiring', tenant, repaired, now)
  local ready, turn = 'codeq:x:ready:' .. tenant, 0
  while #claimed < most and patience > 0 do
    local base = first(ready)
    local queue = base and queue_at(base)
    if not base then break end
    if not queue then
      call('ZREM', ready, base)
    elseif take(queue, 1) then
      turn = turn + 1
      call('ZADD', ready, whole(now_micros + turn), base)
    end
  end
end

local body = {}
local _, due = first('codeq:x:due')
local _, deadline = first('codeq:x:expiring')
report(body, moved, (due and deadline) and min(due, deadline) or due or deadline)
body[#body + 1] = whole(now + lease)
for _, task in ipairs(claimed) do
  body[#body + 1] = task.id
  body[#body + 1] = task.text
end
return answer(body)
