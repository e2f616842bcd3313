-- KEYS: names of each. ARGV: the names. Gives for each its ordinal and record, or nothing.
local found = {}
for n, names in ipairs(KEYS) do
  local ordinal = device_named(names, ARGV[n])
  if ordinal then
    local block, field = slot(names, 'd', ordinal)
    found[n] = { ordinal, call('HGET', block, field) }
  else
    found[n] = {}
  end
end
return found
