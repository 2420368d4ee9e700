-- Brings tasks back whose record somebody mended. A record that is still the same is left alone.

local entries = call('HSCAN', CORRUPT, '0', 'COUNT', REPAIR_LIMIT)[2]
for n = 1, #entries, 2 do
  local id, hash = entries[n], entries[n + 1]:match('^%x+')
  local text = call('HGET', TASKS, id)
  if not text then
    call('HDEL', CORRUPT, id)
  elseif redis.sha1hex(text) ~= hash then
    local task = parse(id, text)
    if task then
      if not is_final(task) then release(task, home(task), now) end
      call('HDEL', CORRUPT, id)
    end
  end
end
return answer({})
