-- For each item: id, worker, tenant, the new end, the same in JSON.

local body, say = answers(1)
for n = FIRST, #ARGV, 5 do
  local record = find_subscription(ARGV[n])
  if not record or record.tenant ~= ARGV[n + 2] or record.ends <= now then
    say('NO_SUBSCRIPTION')
  elseif record.worker ~= '' and record.worker ~= ARGV[n + 1] then
    say('NOT_SUBSCRIBER')
  else
    set(record, 'expiresAt', ARGV[n + 4])
    local text = text_with(record)
    call('HSET', SUBSCRIPTIONS, record.id, text)
    for _, command in ipairs(record.commands) do
      list_under(lower(command), record.id, tonumber(ARGV[n + 3]))
    end
    say('+', text)
  end
end
return answer(body)
