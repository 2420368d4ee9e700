-- Where the last call ended. Looks through some of the records for tasks that are in progress and in
-- nobody's hands, as codeQ's older servers may have left them, and takes them back. Answers where to go
-- on.

-- How long ago such a lease must have ended, so that no server is just about to say where the task is.
local GRACE = 60000

local function is_abandoned(task, queue)
  local id = task.id
  local held = call('HEXISTS', CORRUPT, id) == 1 or call('SISMEMBER', queue.inprog, id) == 1 or call('ZSCORE', queue.deadlines, id)
    or call('SISMEMBER', base_of(queue.command, '') .. ':inprog', id) == 1 or lease_left(id) > 0
  return not held and (instant(lease_until(task)) or 0) + GRACE < now
end

local part = call('HSCAN', TASKS, ARGV[FIRST], 'COUNT', REPAIR_LIMIT)
for n = 1, #part[2], 2 do
  local id, text = part[2][n], part[2][n + 1]
  texts[id] = text
  local task = find(text, 'IN_PROGRESS', 1, true) and load(id)
  if task and task.state.status == 'IN_PROGRESS' then
    local queue = home(task)
    if is_abandoned(task, queue) then retry_or_bury(task, queue, nil, LEASE_EXPIRED_ERROR) end
  end
end
return answer({ part[1] })
