-- Whether only one tenant's tasks, which, until when, at most how many, how many to pass over.
-- Answers how many it removed, how many to pass over next, whether there is more to look at, and the ids.

local of_tenant, tenant = ARGV[FIRST] == '1', ARGV[FIRST + 1]
local before, limit, skip = tonumber(ARGV[FIRST + 2]), tonumber(ARGV[FIRST + 3]), tonumber(ARGV[FIRST + 4])
local LOOKED_AT = 1000

local ids = call('ZRANGEBYSCORE', RETENTION, '-inf', seconds(before), 'LIMIT', skip, LOOKED_AT)
local removed, passed, gone = 0, 0, {}
fetch(ids)

-- codeQ does not count retention from when a task becomes visible or its lease ends.
local function still_needed(task)
  local queue, last = home(task), nil
  if task.state.status == 'PENDING' and task.state.location == 'DELAYED_ZSET' then
    last = call('ZSCORE', queue.delayed, task.id)
      or delayed_elsewhere(queue, task.id)
    last = last and last * 1000
  elseif task.state.status == 'IN_PROGRESS' then
    last = tonumber(call('ZSCORE', queue.deadlines, task.id) or nil)
    local left = last and 0 or lease_left(task.id)
    if left > 0 then last = now + left end
  end
  return last and last + KEPT_FOR > before and last + KEPT_FOR
end

for _, id in ipairs(ids) do
  if removed == limit then break end
  local task, unreadable = load(id)
  if unreadable or (task and of_tenant and task.state.tenant ~= tenant) then
    passed = passed + 1
  elseif not task then
    call('ZREM', RETENTION, id)
  else
    local needed_until = still_needed(task)
    if needed_until then
      call('ZADD', RETENTION, seconds(needed_until), id)
    else
      forget(task, home(task))
      removed = removed + 1
      gone[removed] = id
    end
  end
end

local more = removed < limit and #ids == LOOKED_AT
return answer({ tostring(removed), tostring(skip + passed), more and '1' or '0', unpack(gone) })
