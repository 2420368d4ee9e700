-- Queue keys that were found by scanning. Those that codeQ filled become known here.

-- A task of a queue, to learn whose it is.
local function sample(base)
  local ids = {}
  for priority = 0, 9 do
    for _, id in ipairs(call('LRANGE', base .. ':pending:' .. priority, -3, -1)) do ids[#ids + 1] = id end
  end
  for _, id in ipairs(call('ZRANGE', base .. ':delayed', 0, 2)) do ids[#ids + 1] = id end
  for _, id in ipairs(call('SRANDMEMBER', base .. ':inprog', 3)) do ids[#ids + 1] = id end
  if call('TYPE', base .. ':dlq').ok == 'set' then
    for _, id in ipairs(call('SRANDMEMBER', base .. ':dlq', 3)) do ids[#ids + 1] = id end
  end
  for _, id in ipairs(ids) do
    local task = load(id)
    if task then return task end
  end
end

for n = FIRST, #ARGV do
  local base = ARGV[n]
  local queue = queue_at(base)
  local task = not queue and sample(base)
  if task then
    local command = lower(command_of(task))
    -- codeQ may keep a tenant's delayed task in the queue that has no tenant.
    local tenant = task.state.tenant
    if base_of(command, tenant) == base then
      queue = known(base, command, tenant, false)
    elseif base_of(command, '') == base then
      queue = known(base, command, '', false)
    elseif sub(base, 1, #base_of(command, tenant) + 3) == base_of(command, tenant) .. ':s:' then
      queue = adopt_shard(base, command, tenant)
    end
  end
  if queue and queue.base == base then notice(queue) end
end
return answer({})
