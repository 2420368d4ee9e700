-- Subscriptions: their JSON in one hash. Where else something about them is kept, the layout knows.

-- A subscription from its JSON; nothing if that is none. Older codeQ versions name no worker and no
-- tenant.
local function subscription(id, text)
  local record = text and scan(text)
  if not record then return nil end
  local read, commands = pcall(cjson.decode, raw(record, 'eventTypes') or '[]')
  record.id, record.commands = id, read and type(commands) == 'table' and commands or {}
  record.tenant, record.worker = text_of(record, 'tenantId') or '', text_of(record, 'workerId') or ''
  record.ends = instant(text_of(record, 'expiresAt') or '') or 0
  return record
end

local function find_subscription(id)
  return subscription(id, call('HGET', SUBSCRIPTIONS, id))
end

local function is_about(record, commands)
  for _, mine in ipairs(record.commands) do
    if commands[lower(mine)] then return true end
  end
  return false
end

local function drop_subscription(record)
  for _, command in ipairs(record.commands) do unlist(lower(command), record.id) end
  call('HDEL', SUBSCRIPTIONS, record.id)
end

local function end_subscription(record)
  drop_subscription(record)
  forget_notices(record.id)
end

local function every_subscription()
  local entries, all = call('HGETALL', SUBSCRIPTIONS), {}
  for n = 1, #entries, 2 do all[#all + 1] = subscription(entries[n], entries[n + 1]) end
  return all
end
