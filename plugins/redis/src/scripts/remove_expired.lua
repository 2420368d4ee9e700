-- At most how many.

local limit, removed = tonumber(ARGV[FIRST]), 0
for _, record in ipairs(every_subscription()) do
  if removed == limit then break end
  if record.ends <= now then
    end_subscription(record)
    removed = removed + 1
  end
end
return answer({ tostring(removed) })
