-- JSON objects as their members, each kept as the text it had, so that what this plugin does not know
-- (payload, unknown fields, big numbers) is written back as it was read.

local function end_of_string(text, from)
  local _, close = find(text, '[^\\]"', from)
  if close and not find(sub(text, from, close), '\\\\"', 1, true) then return close end
  -- A backslash before a quote may be escaped itself: an odd number of them escapes the quote.
  close = find(text, '"', from + 1, true)
  while close do
    local before = close - 1
    while byte(text, before) == 92 do before = before - 1 end
    if (close - before) % 2 == 1 then return close end
    close = find(text, '"', close + 1, true)
  end
end

local function end_of_value(text, from)
  local first = byte(text, from)
  if first == 34 then return end_of_string(text, from) end
  if first ~= 123 and first ~= 91 then
    local _, last = find(text, '^[%w%.+-]+', from)
    return last
  end
  local depth, at = 0, from
  while at do
    local mark = byte(text, at)
    if mark == 34 then
      at = end_of_string(text, at)
      if not at then return nil end
    else
      depth = depth + ((mark == 123 or mark == 91) and 1 or -1)
      if depth == 0 then return at end
    end
    at = find(text, '[%[%]{}"]', at + 1)
  end
end

-- The member that begins at `from`: its name, its value, where what follows it ends, and what that is.
local function member(text, from)
  -- Most members are plain and written without blanks.
  local _, stop, name, value, mark = find(text, '^"([^"\\]*)":("[^"\\]*")([,}])', from)
  if not stop then _, stop, name, value, mark = find(text, '^"([^"\\]*)":(%d+)([,}])', from) end
  if stop then return name, value, stop, mark end
  local close = byte(text, from) == 34 and end_of_string(text, from)
  if not close then return nil end
  local _, colon = find(text, '^%s*:%s*', close + 1)
  local last = colon and end_of_value(text, colon + 1)
  if not last then return nil end
  _, stop, mark = find(text, '^%s*([,}])%s*', last + 1)
  return sub(text, from + 1, close - 1), sub(text, colon + 1, last), stop, mark
end

-- An object from its text. Nothing if the text is not a JSON object.
local function scan(text)
  local _, begin = find(text, '^%s*{%s*')
  if not begin then return nil end
  local from, n, names, values, at = begin + 1, 0, {}, {}, {}
  local name, value, stop, mark
  repeat
    name, value, stop, mark = member(text, from)
    if not mark then return nil end
    -- Of two members with one name the last one counts, as in codeQ.
    if at[name] then values[at[name]] = false end
    n = n + 1
    names[n], values[n], at[name] = name, value, n
    from = stop + 1
    if mark == ',' and byte(text, from) ~= 34 then
      from = find(text, '[^%s]', from)
      if not from then return nil end
    end
  until mark == '}'
  if find(text, '[^%s]', stop + 1) then return nil end
  return { n = n, names = names, values = values, at = at }
end

local function raw(object, name)
  local n = object.at[name]
  return n and object.values[n] or nil
end

-- `value` is JSON; without one the member is left out.
local function set(object, name, value)
  local n = object.at[name]
  if n then
    object.values[n] = value or false
  elseif value then
    n = object.n + 1
    object.n, object.names[n], object.values[n], object.at[name] = n, name, value, n
  end
end

-- The text of an object, but for the brace at its end. Members whose names are in `but` are left out.
local function open_text(object, but)
  local texts, count = {}, 0
  for n = 1, object.n do
    if object.values[n] and not (but and but[object.names[n]]) then
      count = count + 1
      texts[count] = '"' .. object.names[n] .. '":' .. object.values[n]
    end
  end
  return '{' .. table.concat(texts, ',')
end

local function text_with(object) return open_text(object) .. '}' end

-- The text of a member; empty if there is none, nothing if it is no text.
local function text_of(object, name)
  local value = raw(object, name)
  if not value or value == 'null' then return '' end
  if byte(value) ~= 34 then return nil end
  if not find(value, '\\', 1, true) then return sub(value, 2, -2) end
  local read, values = pcall(cjson.decode, '[' .. value .. ']')
  return read and values[1] or nil
end

local function number_of(object, name)
  local value = raw(object, name)
  if not value or value == 'null' then return 0 end
  return tonumber(value)
end
